"""A journal record away from its journal, with the head that it follows: what proves its place by itself.

Rules, numbered as the code marks them; the hashing is that of :mod:`exequatur.lineage.record`:

Z8  Every value is one that a journal writes, so that what is hashed is what comes back from every database.
Z9  The head is that of the record's bytes folded into the head before it.
Z10  Before the first record, and before no other, stands the genesis of its log.

A record's position is not hashed: it follows from those before it. A link alone does not prove it, its neighbours do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from exequatur.errors import EvidenceError
from exequatur.lineage.record import Record, fold, genesis, head_text, record_bytes
from exequatur.statements.encoding import from_base64url

LONGEST_BODY = 16 * 1024 * 1024
"""Bytes; as in the journal."""
MOST_RECORDS = 2**53
"""Positions that every JSON parser reads exactly, and with room to count on from them."""
_LOG_ID = re.compile(r"[0-9a-f]{16}\Z")
_DIGEST = re.compile(r"[A-Za-z0-9_-]{43}\Z")


@dataclass(frozen=True, slots=True)
class Link:
    """A record and the head of its log before it.

    Args:
        record: The record.
        previous: SHA-256, base64url, as :attr:`~exequatur.lineage.record.Record.head`.
    """

    record: Record
    previous: str


def genesis_of(log_id: str) -> str:
    """The head of an empty log as text.

    Raises:
        EvidenceError: ``log_id`` is not 8 bytes in hex.
    """
    if not _LOG_ID.match(log_id):
        raise EvidenceError(f"{log_id[:40]!r} is not the id of a log, which is 16 lower-case hex digits [Z8]")
    return head_text(genesis(log_id))


def check_link(link: Link) -> None:
    """Recompute the head of a record from it and the head before it.

    Raises:
        EvidenceError: Z8 to Z10.
    """
    record = link.record
    first = genesis_of(record.log_id)  # [Z8]
    # The sign: databases store -0.0 as 0.0, which is other bytes.
    if not math.isfinite(record.at) or math.copysign(1, record.at) < 0:  # [Z8]
        raise _refused("Z8", record, "has a time that no clock shows")
    if not 0 <= record.index < MOST_RECORDS or len(record.body) > LONGEST_BODY:  # [Z8]
        raise _refused("Z8", record, "has a position or a length that no journal writes")
    if not _DIGEST.match(link.previous):  # [Z8]
        raise _refused("Z8", record, "stands after something that is no head")
    if (record.index == 0) != (link.previous == first):  # [Z10]
        raise _refused(
            "Z10", record, "is the first and does not follow from the genesis of its log, or is not and does"
        )
    try:
        hashed = record_bytes(record.kind, record.at, record.request, record.run, record.attempt, record.body)
        head = fold(from_base64url(link.previous), hashed)
    except ValueError as err:  # [Z8]
        raise _refused("Z8", record, "holds a value that no journal writes") from err
    if record.head != head_text(head):  # [Z9]
        raise _refused("Z9", record, "does not follow from the head before it: it was edited, or stands elsewhere")


def linked(records: Sequence[Record], after: str) -> list[Link]:
    """Verify that records follow from a head without a gap.

    Args:
        records: Of one log, in order.
        after: The head before the first.

    Raises:
        EvidenceError: Z8 to Z10, or a record does not stand right after the one before.
    """
    links: list[Link] = []
    for record in records:
        if links and (record.log_id != links[0].record.log_id or record.index != links[-1].record.index + 1):
            raise _refused("Z9", record, "does not stand right after the record before it")
        link = Link(record, after)
        check_link(link)
        links.append(link)
        after = record.head
    return links


def _refused(rule: str, record: Record, what: str) -> EvidenceError:
    return EvidenceError(f"log {record.log_id}: record {record.index} {what} [{rule}]")
