"""Logs made by hand: records that follow from each other as a journal writes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from exequatur.lineage.link import Link, genesis_of
from exequatur.lineage.record import Record, fold, head_text, record_bytes
from exequatur.statements.encoding import digest, from_base64url, to_base64url

LOG = "00112233aabbccdd"
OTHER = "ffeeddccbbaa9988"
AT = 1_800_000_000.0


def decision(workflow_id: object = "refund-1", run_id: object = "run-1", **more: object) -> tuple[str, bytes]:
    """The kind and body of a decision about a run."""
    claims = {"request": digest("request"), "workflow_id": workflow_id, "run_id": run_id} | more
    return "decision", json.dumps(claims).encode()


def receipt(**claims: object) -> tuple[str, bytes]:
    """The kind and body of something that looks like a receipt."""
    return "receipt", f"e30.{to_base64url(json.dumps(claims).encode())}.AAAA".encode()


def bundle(text: str) -> tuple[str, bytes]:
    """The kind and body of an archived policy bundle."""
    return "bundle", text.encode()


def chained(
    *bodies: tuple[str, bytes], log_id: str = LOG, after: Record | None = None, at: Sequence[float] = ()
) -> list[Record]:
    """Records of these kinds and bodies, from the beginning of a log or after a record of it."""
    head = after.head if after else genesis_of(log_id)
    records: list[Record] = []
    for offset, (kind, body) in enumerate(bodies):
        index = (after.index + 1 if after else 0) + offset
        time = at[offset] if at else AT + index
        request, run, attempt = (digest(str(index)), "run", 1) if kind == "decision" else (None, None, None)
        hashed = record_bytes(kind, time, request, run, attempt, body)
        head = head_text(fold(from_base64url(head), hashed))
        records.append(Record(log_id, index, time, kind, request, run, attempt, body, head))
    return records


def decisions(count: int, log_id: str = LOG, **more: object) -> list[Record]:
    """A log of so many decisions about one run."""
    return chained(*(decision(number=number, **more) for number in range(count)), log_id=log_id)


def records_of(links: Iterable[Link]) -> list[Record]:
    return [link.record for link in links]
