"""Rebuilds a run's chain from its history: do requests and receipts follow from each other, and is none missing?

Rules, numbered as the code marks them:

L1  Requests are numbered from 1 without a gap or a repeat, stand in the history in that order, and each names the head
    before it.
L2  A request tells which receipts the workflow had seen since the one before; each of them is in the history.
L3  Of a local activity Temporal records no request. What the workflow had seen before it is a beginning of the receipts
    that were left, in the order in which the history ends their activities.
L4  A request that is missing leaves a trace in the next head. It is passed over only if some activity type that is
    known here gives that very head: then the workflow asked, and withdrew before the server was told.
L5  The head at the end is the one that was sealed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from exequatur.lineage.chain import fold

_MAX_STATES = 20_000
"""Bounds the search for withdrawn requests: some 300 receipts times 64 types, or three in a row with less."""
_MAX_PREFIX = 4096
"""Receipts that are tried as seen before a local activity; more are not in flight in one run."""


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


@dataclass
class _State:
    """A head that the chain may have, and the receipts that were folded on the way to it."""

    head: str
    folded: frozenset[int] = frozenset()


@dataclass
class Rebuilt:
    """What came of it.

    Args:
        count: The highest number of a request.
        broken: L1 to L4.
        withdrawn: Numbers of requests that left no event.
    """

    count: int = 0
    broken: list[Broken] = field(default_factory=list)
    withdrawn: list[int] = field(default_factory=list)
    _states: list[_State] = field(default_factory=list)
    _left: dict[int, str] = field(default_factory=dict)

    def ends_with(self, head: str) -> bool:
        """L5: whether the run may have been sealed with this head."""
        return any(reached == head for state in self._states for reached, _ in _prefixes(state, self._left))


def rebuild(
    genesis: str,
    asked: Iterable[Asked],
    received: Sequence[tuple[int, str]],
    core_of: Callable[[int, str, str], str],
    types: Sequence[str],
    sealed: int | None = None,
) -> Rebuilt:
    """Rebuild a chain.

    Args:
        genesis: The head before the first request.
        asked: The requests that are known.
        received: Number and digest of each receipt that the workflow believed, in the order of the history.
        core_of: The hash of a core, from its number, activity type and the head before it.
        types: The activity types that are known, for L4.
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
    digests = dict(received)
    left = dict(received)
    states = [_State(genesis)]
    result.count = max([*by_seq, sealed or 0], default=0)
    if result.count > len(by_seq) + _MAX_PREFIX:
        result.broken.append(Broken(f"Most of the {result.count} requests are missing", None))
        return result
    for seq in range(1, result.count + 1):
        known = by_seq.get(seq)
        if known is None:  # [L4]
            states = _withdrawn(states, left, seq, core_of, types)
            result.withdrawn.append(seq)
            continue
        reached, problem = _reach(states, known, digests, left)
        if reached is None:  # [L1]
            gap = result.withdrawn and result.withdrawn[-1] == seq - 1
            before = f"request {seq - 1} is missing, and request {seq} does not" if gap else f"Request {seq} does not"
            sentence = problem or f"{before[:1].upper()}{before[1:]} follow from what the history has before it"
            result.broken.append(Broken(sentence, known.event_id))
            reached = _State(known.prev)
            if known.seen is not None:
                reached = _State(known.prev, frozenset(known.seen))
        for number in reached.folded:
            left.pop(number, None)
        states = [_State(fold(known.prev, "request", known.core))]
    result._states, result._left = states, left
    return result


def _reach(
    states: Sequence[_State], known: Asked, digests: Mapping[int, str], left: Mapping[int, str]
) -> tuple[_State | None, str | None]:
    """The state in which the head is the one that the request names."""
    if known.seen is None:  # [L3]
        for state in states:
            for head, folded in _prefixes(state, left):
                if head == known.prev:
                    return _State(head, folded), None
        return None, None
    missing = [number for number in known.seen if number not in digests]
    if missing:  # [L2]
        return (
            None,
            f"Request {known.seq} has seen the receipt of request {missing[0]}, which the history does not have",
        )
    repeated = [number for number in known.seen if number not in left]
    if repeated or len(set(known.seen)) != len(known.seen):
        return None, f"Request {known.seq} has seen a receipt a second time"
    for state in states:
        head = state.head
        for number in known.seen:
            head = fold(head, "receipt", digests[number])
        if head == known.prev:
            return _State(head, state.folded | set(known.seen)), None
    return None, None


def _prefixes(state: _State, left: Mapping[int, str]) -> Iterator[tuple[str, frozenset[int]]]:
    """The heads that folding the first receipts that are left gives, beginning with none."""
    head, folded = state.head, set(state.folded)
    yield head, frozenset(folded)
    for count, (number, receipt) in enumerate(left.items()):
        if count >= _MAX_PREFIX:
            return
        if number not in state.folded:
            head = fold(head, "receipt", receipt)
            folded.add(number)
            yield head, frozenset(folded)


def _withdrawn(
    states: Sequence[_State],
    left: Mapping[int, str],
    seq: int,
    core_of: Callable[[int, str, str], str],
    types: Sequence[str],
) -> list[_State]:
    found: list[_State] = []
    for state in states:
        for head, folded in _prefixes(state, {number: text for number, text in left.items() if number < seq}):
            for activity_type in types:
                if len(found) >= _MAX_STATES:
                    return found
                found.append(_State(fold(head, "request", core_of(seq, activity_type, head)), folded))
    return found
