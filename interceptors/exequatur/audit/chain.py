"""Rebuilds a run's chain from its history: do requests and receipts follow from each other, and is none missing?

Rules, numbered as the code marks them:

L1  Requests are numbered from 1 without a gap or a repeat, stand in the history in that order, and each names the head
    before it.
L2  A request tells which receipts the workflow had seen since the one before; each of them is in the history.
L3  Of a local activity Temporal records no request. What the workflow had seen before it is a beginning of the receipts
    that were left, in the order in which the history ends their activities.
L4  A request that is missing leaves a trace in the next head. It is passed over only if some activity type that is
    known here, under some leaf that the run stood on, gives that very head: then the workflow asked, and withdrew
    before the server was told.
L5  The head at the end is the one that was sealed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from exequatur.lineage.chain import fold

_MAX_WORK = 400_000
"""Hashes that a search may cost, about two seconds; an untouched run needs two for each request and receipt."""
_MAX_STATES = 20_000
"""Ways that requests may have been withdrawn which are followed at a time, the likeliest first: a workflow that asks
again has seen the receipts that are there."""
_MAX_MISSING = 4096
"""Requests that are looked for; more than a few are never withdrawn."""


Kind = tuple[str, str]
"""Of a request: the digest of the leaf that it stands on, and its activity type."""


@dataclass(frozen=True)
class Asked:
    """A request as the chain sees it.

    Args:
        seq: Its number.
        core: The hash of its core.
        prev: The head that it names.
        seen: What it says it had seen; ``None`` where it is not recorded.
        event_id: Of the event that scheduled it.
    """

    seq: int
    core: str
    prev: str
    seen: tuple[int, ...] | None
    event_id: int | None


@dataclass(frozen=True)
class Broken:
    """Where the chain does not hold."""

    sentence: str
    event_id: int | None


@dataclass(frozen=True)
class _State:
    """A head that the chain may have, and how many of the receipts that are left were folded on the way to it."""

    head: str
    count: int = 0


class _Exhausted(Exception):
    """The search has cost what it may."""


@dataclass
class _Work:
    left: int = _MAX_WORK

    def spend(self, hashes: int = 1) -> None:
        self.left -= hashes
        if self.left < 0:
            raise _Exhausted


@dataclass
class Rebuilt:
    """What came of it.

    Args:
        count: The highest number of a request.
        broken: L1 to L4.
        withdrawn: Numbers of requests that left no event.
        given_up: The search was ended before it was known whether the chain holds.
    """

    count: int = 0
    broken: list[Broken] = field(default_factory=list)
    withdrawn: list[int] = field(default_factory=list)
    given_up: bool = False
    _states: list[_State] = field(default_factory=list)
    _left: dict[int, str] = field(default_factory=dict)
    _work: _Work = field(default_factory=_Work)

    def ends_with(self, head: str) -> bool:
        """L5: whether the run may have been sealed with this head."""
        try:
            return _prefix_with(self._states, head, self._left, self.count + 1, self._work) is not None
        except _Exhausted:
            self.given_up = True
            return False


def rebuild(
    genesis: str,
    asked: Iterable[Asked],
    received: Sequence[tuple[int, str]],
    core_of: Callable[[int, Kind, str], str],
    kinds: Sequence[Kind],
    sealed: int | None = None,
) -> Rebuilt:
    """Rebuild a chain.

    Args:
        genesis: The head before the first request.
        asked: The requests that are known.
        received: Number and digest of each receipt that the workflow believed, in the order of the history.
        core_of: The hash of a core, from its number, kind and the head before it.
        kinds: What a request that is missing may have been, for L4.
        sealed: The number of requests that a seal tells of, if there is one.
    """
    result = Rebuilt()
    by_seq: dict[int, Asked] = {}
    latest: Asked | None = None
    for each in asked:
        if each.seen is not None:  # the event of a local activity is its end
            if latest is not None and latest.seq > each.seq:  # [L1]
                result.broken.append(Broken(f"Request {each.seq} stands after request {latest.seq}", each.event_id))
            latest = each
        if by_seq.setdefault(each.seq, each) is not each:  # [L1]
            result.broken.append(Broken(f"Request {each.seq} is there twice", each.event_id))
    result.count = max([*by_seq, sealed or 0], default=0)
    if result.count > len(by_seq) + _MAX_MISSING:
        result.broken.append(Broken(f"Most of the {result.count} requests are missing", None))
        return result
    try:
        _follow(result, genesis, by_seq, received, core_of, kinds)
    except _Exhausted:
        result.given_up = True
    return result


def _follow(
    result: Rebuilt,
    genesis: str,
    by_seq: Mapping[int, Asked],
    received: Sequence[tuple[int, str]],
    core_of: Callable[[int, Kind, str], str],
    kinds: Sequence[Kind],
) -> None:
    """Follow the chain from its beginning.

    Raises:
        _Exhausted: It was too much to search.
    """
    digests, left, cut = dict(received), dict(received), False
    states = [_State(genesis)]
    for seq in range(1, result.count + 1):
        known = by_seq.get(seq)
        if known is None:  # [L4]
            states, cut = _withdrawn(states, left, seq, core_of, kinds, result._work)
            result.withdrawn.append(seq)
            continue
        reached, seen, problem = _reach(states, known, digests, left, result._work)
        if reached is None:  # [L1]
            if cut and problem is None:
                raise _Exhausted
            gap = result.withdrawn and result.withdrawn[-1] == seq - 1
            before = f"request {seq - 1} is missing, and request {seq} does not" if gap else f"Request {seq} does not"
            sentence = problem or f"{before[:1].upper()}{before[1:]} follow from what the history has before it"
            result.broken.append(Broken(sentence, known.event_id))
            reached = _State(known.prev)
        for number in (*islice(left, reached.count), *seen):
            left.pop(number, None)
        states, cut = [_State(fold(known.prev, "request", known.core))], False
    result._states, result._left = states, left


def _reach(
    states: Sequence[_State],
    known: Asked,
    digests: Mapping[int, str],
    left: Mapping[int, str],
    work: _Work,
) -> tuple[_State | None, frozenset[int], str | None]:
    """The state in which the head is the one that the request names, and what it says that it had seen since."""
    if known.seen is None:  # [L3]
        return _prefix_with(states, known.prev, left, known.seq, work), frozenset(), None
    seen = frozenset(known.seen)
    missing = [number for number in known.seen if number not in digests]
    if missing:  # [L2]
        sentence = f"Request {known.seq} has seen the receipt of request {missing[0]}, which the history does not have"
        return None, seen, sentence
    if len(seen) != len(known.seen) or any(number not in left for number in seen):
        return None, seen, f"Request {known.seq} has seen a receipt a second time"
    for state in states:
        head = state.head
        work.spend(len(known.seen))
        for number in known.seen:
            head = fold(head, "receipt", digests[number])
        if head == known.prev:
            return state, seen, None
    return None, seen, None


def _prefixes(state: _State, left: Mapping[int, str], seq: int, work: _Work) -> Iterator[_State]:
    """The states that folding the first receipts that are left gives, beginning with none.

    Before a request was made, the workflow cannot have seen its receipt or that of a later one.
    """
    yield state
    head = state.head
    for count, (number, receipt) in enumerate(islice(left.items(), state.count, None), state.count + 1):
        if number >= seq:
            return
        work.spend()
        head = fold(head, "receipt", receipt)
        yield _State(head, count)


def _prefix_with(states: Sequence[_State], head: str, left: Mapping[int, str], seq: int, work: _Work) -> _State | None:
    for state in states:
        for reached in _prefixes(state, left, seq, work):
            if reached.head == head:
                return reached
    return None


def _withdrawn(
    states: Sequence[_State],
    left: Mapping[int, str],
    seq: int,
    core_of: Callable[[int, Kind, str], str],
    kinds: Sequence[Kind],
    work: _Work,
) -> tuple[list[_State], bool]:
    """The states after a request that is missing, and whether there were more than are followed."""
    found: list[_State] = []
    for state in states:
        for reached in reversed(list(_prefixes(state, left, seq, work))):
            for kind in kinds:
                if len(found) >= _MAX_STATES:
                    return found, True
                work.spend(2)
                core = core_of(seq, kind, reached.head)
                found.append(_State(fold(reached.head, "request", core), reached.count))
    return found, False
