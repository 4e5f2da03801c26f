"""Who looks at a page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from exequatur.identity.principal import UNAUTHENTICATED, Principal


@dataclass(frozen=True)
class Viewer:
    """Who looks at a page.

    Args:
        principal: As Cedar sees it.
        kind: How it is known: by the link that was printed at the start, by a login, or not at all.
        csrf: What a form of this viewer's session has to bring along; empty where nothing may be changed.
    """

    principal: Principal
    kind: Literal["local", "login", "public"]
    csrf: str = field(default="", repr=False)

    @property
    def public(self) -> bool:
        """Whether it sees only what names nobody."""
        return self.kind == "public"


PUBLIC = Viewer(UNAUTHENTICATED, "public")
