"""On whose behalf the current context starts workflows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from exequatur.identity.principal import Principal

_acting: ContextVar[Principal | None] = ContextVar("exequatur_acting_as", default=None)


@contextmanager
def acting_as(principal: Principal) -> Iterator[Principal]:
    """Set the principal of the workflows that are started inside the ``with`` block.

    The setting belongs to the current context (PEP 567): concurrent tasks and threads do not see each other's.

    Args:
        principal: On whose behalf.
    """
    token = _acting.set(principal)
    try:
        yield principal
    finally:
        _acting.reset(token)


def acting_principal() -> Principal | None:
    """The principal of the innermost :func:`acting_as`, or ``None`` outside of any."""
    return _acting.get()
