"""A history as the leaves of a Merkle tree (RFC 9162): each event's proto3 JSON in canonical form (JCS, RFC 8785)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import rfc8785
from google.protobuf.json_format import Error, MessageToDict
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

from exequatur.errors import EvidenceError
from exequatur.lineage.merkle import Tree, leaf_hash

_PASSING = (EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED, EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED)


def leaf(event: HistoryEvent) -> bytes:
    """The leaf of an event.

    Raises:
        EvidenceError: It holds a value that proto3 JSON does not have, such as a duration of mixed signs.
    """
    try:
        return rfc8785.dumps(MessageToDict(event))
    except (Error, ValueError, OverflowError) as error:
        raise EvidenceError(f"event {event.event_id} cannot be written as JSON: {error}") from None


def tree_of(events: Iterable[HistoryEvent]) -> Tree:
    """The tree over events.

    Raises:
        EvidenceError: One of them has no leaf.
    """
    return Tree(leaf_hash(leaf(event)) for event in events)


def settled(events: Sequence[HistoryEvent]) -> int:
    """How many events of a history are there to stay.

    A workflow task that is under way or is tried again may be shown at the end and be gone the next time.
    """
    count = len(events)
    while count and events[count - 1].event_type in _PASSING:
        count -= 1
    return count
