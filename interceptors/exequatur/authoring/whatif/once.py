"""Recorded decisions of which several sources tell: each counts once, by the record that holds the most of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from exequatur.authoring.whatif.comparison import Recorded
from exequatur.authoring.whatif.held import Arguments, NoArguments, PlainArguments, Unreadable

#: Decisions that are told apart, some 100 bytes each; beyond it one may count twice.
MAX_TOLD_APART = 500_000
#: Decisions without arguments that wait for a source which has them.
MAX_WAITING = 10_000


class Once:
    """Passes recorded decisions on, without those that an earlier source had.

    Sources are read in the order in which they hold the most: histories, which have all arguments, before journals,
    which have those that the policies of that time could read.

    Args:
        add: Where they go.
        sources: How many there are; of a single one nothing is remembered.
    """

    def __init__(self, add: Callable[[Recorded], None], sources: int) -> None:
        self._add = add
        self._left = sources
        self._several = sources > 1
        self._earlier: set[bytes] = set()
        self._here: set[bytes] = set()
        self._waiting: dict[bytes, Recorded] = {}
        self.repeated = 0
        """How many were left out."""

    def add(self, recorded: Recorded) -> None:
        """Pass a decision of the present source on, unless an earlier one had it."""
        key = _key(recorded) if self._several else None
        if key is None:
            self._add(recorded)
            return
        if key in self._earlier:
            self.repeated += 1
            return
        waiting = self._waiting.get(key)
        if _lacking(recorded.arguments) and self._left > 1:
            if waiting is not None:
                self.repeated += 1
                return
            if len(self._waiting) < MAX_WAITING:
                self._waiting[key] = recorded
                return
        if waiting is not None:
            del self._waiting[key]
            self.repeated += 1
        self._add(recorded)
        if len(self._earlier) + len(self._here) < MAX_TOLD_APART:
            self._here.add(key)

    def end_source(self) -> None:
        """Go on to the next source; behind the last one, pass on what has waited for it."""
        self._left -= 1
        self._earlier |= self._here
        self._here = set()
        if self._left <= 0:
            for recorded in self._waiting.values():
                self._add(recorded)
            self._waiting = {}


def _lacking(arguments: Arguments) -> bool:
    """Whether there were arguments that the record does not hold as values."""
    if isinstance(arguments, PlainArguments):
        return any(isinstance(each, Unreadable) for each in arguments.values)
    return isinstance(arguments, NoArguments)


def _key(recorded: Recorded) -> bytes | None:
    where = recorded.where
    if not where.run_id:
        return None  # Which run it was is not known, and a workflow's id is used again.
    text = "\0".join((where.run_id, where.activity_id, str(where.attempt), recorded.action))
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
