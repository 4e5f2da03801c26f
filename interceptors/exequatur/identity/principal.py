"""The principal: on whose behalf a run acts, as Cedar sees it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_ENTITY = re.compile(r'(?P<type>[A-Za-z_]\w*(?:::[A-Za-z_]\w*)*)::"(?P<id>[^"\\\n\r]+)"\Z')


@dataclass(frozen=True)
class Principal:
    """A Cedar entity with the attributes and parents that its issuer vouches for.

    Args:
        type: Cedar entity type, for example ``"Agent"`` or ``"Acme::User"``.
        id: Entity id.
        attributes: Cedar JSON values by attribute name.
        parents: Roles, groups, tenant: principals, or strings such as ``'Role::"ops"'``.

    Raises:
        ValueError: ``type`` is not a Cedar type name, ``id`` is empty or has a quote, backslash or newline, or a parent
            string is not ``Type::"id"``.
    """

    type: str
    id: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    parents: Sequence[Principal | str] = ()

    def __post_init__(self) -> None:
        if not _ENTITY.match(f'{self.type}::"id"'):
            raise ValueError(f"{self.type!r} is not a Cedar entity type; use a name such as Agent or Acme::User")
        if set(self.id) & set('"\\\n\r') or not self.id:
            raise ValueError(
                f"{self.id!r} cannot be an entity id here: it is empty or has a quote, backslash or newline"
            )
        parents = tuple(parent if isinstance(parent, Principal) else Principal.parse(parent) for parent in self.parents)
        object.__setattr__(self, "parents", parents)

    @classmethod
    def parse(cls, text: str) -> Principal:
        """Read ``Type::"id"``.

        Raises:
            ValueError: ``text`` has another form.
        """
        match = _ENTITY.match(text)
        if not match:
            raise ValueError(f'{text!r} is not a Cedar entity; write it as Role::"ops"')
        return cls(match["type"], match["id"])

    def __str__(self) -> str:
        return f'{self.type}::"{self.id}"'

    @property
    def uid(self) -> dict[str, str]:
        """The entity's uid in Cedar's JSON form."""
        return {"type": self.type, "id": self.id}

    def entity(self) -> dict[str, Any]:
        """The entity in Cedar's JSON form, as a policy bundle evaluates it."""
        return {
            "uid": self.uid,
            "attrs": dict(self.attributes),
            "parents": [parent.uid for parent in self.parents if isinstance(parent, Principal)],
        }


UNAUTHENTICATED = Principal("Unauthenticated", "anonymous")
"""The principal of a run that carries no grant."""
