"""Journals of workers that lie: records changed, and everything after them linked anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from exequatur.lineage.record import Record, fold, genesis, head_text, record_bytes


def relinked(records: Sequence[Record], at: int, body: bytes) -> list[Record]:
    """A log in which one record has another body, and each head follows from the one before it.

    Args:
        records: A whole log.
        at: The place of the record.
        body: The other body.
    """
    head = genesis(records[0].log_id)
    result = []
    for place, record in enumerate(records):
        told = replace(record, body=body) if place == at else record
        head = fold(head, record_bytes(told.kind, told.at, told.request, told.run, told.attempt, told.body))
        result.append(replace(told, head=head_text(head)))
    return result
