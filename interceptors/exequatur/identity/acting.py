"""On whose behalf the current context does things."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from exequatur.identity.actors import actor_of
from exequatur.identity.credential import Credential
from exequatur.identity.principal import UNAUTHENTICATED, Principal
from exequatur.statements.models import Actor


@dataclass(frozen=True)
class OnBehalf:
    """On whose behalf something is asked for.

    Args:
        principal: ``UNAUTHENTICATED`` where only the authority can tell, from the credential or from how this process
            identifies itself.
        acting: Who acts for the principal (RFC 8693, section 4.1).
        credential: What proves it to the authority.
    """

    principal: Principal
    acting: Actor | None = None
    credential: Credential | None = None

    def __str__(self) -> str:
        return "the holder of a credential" if self.credential is not None else str(self.principal)


_acting: ContextVar[OnBehalf | None] = ContextVar("exequatur_acting_as", default=None)


@contextmanager
def acting_as(
    who: Principal | Credential, *, through: Sequence[Principal | str] = ()
) -> Iterator[Principal | Credential]:
    """Set on whose behalf things are done inside the ``with`` block: workflows started, messages sent, and so on.

    The setting belongs to the current context (PEP 567): concurrent tasks and threads do not see each other's.

    Args:
        who: A principal, which an authority elsewhere does not believe; or a token of an identity provider, from which
            the authority tells the principal. The token goes to the authority and nowhere else.
        through: Who acts for the principal, from the one who acts now to the one whom the principal asked; text is
            ``Type::"id"``. Of a credential the authority tells that, too.

    Raises:
        ValueError: ``through`` is given with a credential, has more than
            :data:`exequatur.identity.actors.MAX_ACTORS` names, or one that is not ``Type::"id"``.
    """
    actor = actor_of(through)
    if isinstance(who, Principal):
        on_behalf = OnBehalf(who, actor)
    elif actor is not None:
        raise ValueError("Give through with a principal; of a credential, the authority tells who acts")
    else:
        on_behalf = OnBehalf(UNAUTHENTICATED, credential=who)
    token = _acting.set(on_behalf)
    try:
        yield who
    finally:
        _acting.reset(token)


def acting_now() -> OnBehalf | None:
    """What the innermost :func:`acting_as` says, or ``None`` outside of any."""
    return _acting.get()
