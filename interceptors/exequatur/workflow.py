"""What workflow code says to the gate: what it wants to be held to.

``restricted`` narrows what the code inside of it may ask for, whatever its grant and the policies allow::

    import exequatur.workflow

    with exequatur.workflow.restricted(activities=["look_up", "refund"], expires_in=timedelta(minutes=10)):
        await workflow.execute_child_workflow(Agent.run, task)

It stands in every request and delegation that is signed meanwhile, and the gate refuses what it excludes. Nothing here
depends on more than the arguments and the workflow's recorded time, so that a replay does the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType

from temporalio import workflow

from exequatur.policy.syntax import statements, tokens

MAX_BYTES = 4000
"""Of what one restriction says, as JSON. It travels with every activity."""
MAX_NESTED = 16
"""Restrictions in one another."""
_LONGEST = timedelta(days=3650)
_MAX_NAME = 1000
_MAX_FORBID = 2000


@dataclass(frozen=True, slots=True)
class Restricted:
    """One restriction in force.

    Args:
        activities: Activity types; ``*`` and ``?`` as in a shell pattern. ``None`` for any.
        until: Seconds since 1970.
        forbid: Cedar policies, each a ``forbid``.
    """

    activities: tuple[str, ...] | None
    until: float | None
    forbid: str | None


_in_force: ContextVar[tuple[Restricted, ...]] = ContextVar("exequatur.restricted", default=())


def restrictions() -> tuple[Restricted, ...]:
    """Those in force where this is called, the outermost first."""
    return _in_force.get()


def restricted(
    *,
    activities: Sequence[str] | None = None,
    expires_in: timedelta | None = None,
    forbid: str | None = None,
) -> AbstractContextManager[None]:
    """Narrow what the code inside of a ``with`` may ask for: activities, Nexus operations and child workflows.

    It counts for the task that enters it and for tasks that are made inside of it, not for others of the same workflow.
    Restrictions in one another add up. A child workflow, its own children and the run that continues this one as new
    are held to it for good. What it excludes fails with ``AuthorizationDenied``. In a run without a grant, and without
    the plugin, it does nothing.

    Args:
        activities: The only activity types, and Nexus operations as ``nexus:service/operation``; ``*`` and ``?`` as in
            a shell pattern. In one another, patterns with wildcards allow what both allow only where one plainly covers
            the other.
        expires_in: How long from entering it; at most ten years.
        forbid: Cedar policies, each a ``forbid``, that count besides those in force; up to 2,000 characters. They are
            evaluated as strictly: what they cannot be evaluated for is refused.

    Raises:
        ValueError: Nothing is given, or something that cannot be meant.
    """
    if activities is None and expires_in is None and forbid is None:
        raise ValueError("restricted() restricts nothing; give activities, expires_in or forbid")
    names = None if activities is None else _names(activities)
    if expires_in is not None and not (
        isinstance(expires_in, timedelta) and timedelta(milliseconds=1) <= expires_in <= _LONGEST
    ):
        raise ValueError("expires_in must be a timedelta of at least a millisecond and at most ten years")
    if forbid is not None:
        _check_forbid(forbid)
    if len(json.dumps([names, forbid], ensure_ascii=False).encode()) > MAX_BYTES:
        raise ValueError(f"the restriction has more than {MAX_BYTES} bytes; say it with fewer names or policies")
    return _Restricting(names, expires_in, forbid)


class _Restricting:
    """The ``with`` block. Not made of a generator: one of those would also decorate a coroutine function, and be over
    before its first line runs.
    """

    def __init__(self, activities: tuple[str, ...] | None, expires_in: timedelta | None, forbid: str | None) -> None:
        self._activities = activities
        self._expires_in = expires_in
        self._forbid = forbid
        self._entered: Token[tuple[Restricted, ...]] | None = None

    def __enter__(self) -> None:
        if self._entered is not None:
            raise ValueError("this restriction is already in force; call restricted() for each block")
        around = _in_force.get()
        if len(around) >= MAX_NESTED:
            raise ValueError(f"there are already {MAX_NESTED} restrictions in one another")
        until = None
        if self._expires_in is not None and workflow.in_workflow():
            until = round(workflow.time() + self._expires_in.total_seconds(), 3)
        self._entered = _in_force.set((*around, Restricted(self._activities, until, self._forbid)))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        entered, self._entered = self._entered, None
        # A generator may be closed in another context than the one that entered; that one stays restricted.
        with suppress(ValueError):
            if entered is not None:
                _in_force.reset(entered)


def _names(activities: Sequence[str]) -> tuple[str, ...]:
    if isinstance(activities, str | bytes) or not isinstance(activities, Sequence):
        raise ValueError("activities must be a list of activity types")
    for name in activities:
        if not isinstance(name, str) or not 1 <= len(name) <= _MAX_NAME:
            raise ValueError("an activity type must be a text of 1 to 1,000 characters")
    return tuple(dict.fromkeys(activities))


def _check_forbid(text: str) -> None:
    """Refuse what cannot be forbids by its words alone. Whether Cedar takes it is for the gate, which denies else."""
    if not isinstance(text, str) or not text.strip() or len(text) > _MAX_FORBID:
        raise ValueError(f"forbid must be Cedar policies of 1 to {_MAX_FORBID} characters")
    effects = list(_effects(text))
    if not effects or any(effect != "forbid" for effect in effects):
        raise ValueError("forbid may hold nothing but Cedar policies that forbid; a restriction permits nothing")
    if tokens(text)[-1].text != ";":
        raise ValueError("the last policy in forbid does not end with a semicolon")


def _effects(text: str) -> Iterator[str]:
    """The word of each policy that comes after its annotations."""
    for policy in statements(text):
        words = [word.text for word in tokens(policy.text)]
        while words[:1] == ["@"]:
            words = words[words.index(")") + 1 :] if words[2:3] == ["("] and ")" in words else words[2:]
        yield words[0] if words else ""
