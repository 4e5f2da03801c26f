"""The ledger's database: its tables, and what is asked of them.

Names are found by the first 16 bytes of their SHA-256, so that an index holds any name of any length. Sums are kept as
what each event adds to them.
"""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    Select,
    String,
    Table,
    and_,
    bindparam,
    exists,
    func,
    select,
)

from exequatur.errors import EvidenceError
from exequatur.lineage.event import DAY, HOUR, MINUTE, Event, Numbers
from exequatur.lineage.store_schema import Layout

_metadata = MetaData()
head = Table(
    "ledger_head",
    _metadata,
    Column("id", String, primary_key=True),
    Column("size", BigInteger, nullable=False),
)
pins = Table(
    "ledger_pins",
    _metadata,
    Column("name", LargeBinary, primary_key=True),
    Column("holder", LargeBinary, nullable=False),
    Column("until", Double),
)
events = Table(
    "ledger_events",
    _metadata,
    Column("position", BigInteger, primary_key=True),
    Column("log_id", String, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("principal", LargeBinary, nullable=False),
    Column("pair", LargeBinary, nullable=False),
    Column("flow", LargeBinary, nullable=False),
    Column("run", LargeBinary, nullable=False),
    Column("edge", LargeBinary),
    Column("shape", LargeBinary),
    Column("asked", Integer, nullable=False),
    Column("denied", Integer, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("took", BigInteger, nullable=False),
    Column("gone", BigInteger),
    Column("body", LargeBinary, nullable=False),
)

LAYOUT = Layout(
    "a ledger",
    Table("ledger_version", _metadata, Column("version", Integer, primary_key=True)),
    (
        (
            "CREATE TABLE ledger_head (id TEXT PRIMARY KEY, size BIGINT NOT NULL)",
            "CREATE TABLE ledger_pins (name {bytes} PRIMARY KEY, holder {bytes} NOT NULL, until DOUBLE PRECISION)",
            "CREATE TABLE ledger_events (position BIGINT PRIMARY KEY, log_id TEXT NOT NULL, at BIGINT NOT NULL,"
            " principal {bytes} NOT NULL, pair {bytes} NOT NULL, flow {bytes} NOT NULL, run {bytes} NOT NULL,"
            " edge {bytes}, shape {bytes}, asked INTEGER NOT NULL, denied INTEGER NOT NULL, cost BIGINT NOT NULL,"
            " took BIGINT NOT NULL, gone BIGINT, body {bytes} NOT NULL)",
            "CREATE INDEX ledger_pins_by_end ON ledger_pins (until) WHERE until IS NOT NULL",
            # With what is added up, so that the rows need not be visited.
            "CREATE INDEX ledger_events_by_principal ON ledger_events (principal, at, denied, cost)",
            "CREATE INDEX ledger_events_by_pair ON ledger_events (pair, at, asked)",
            "CREATE INDEX ledger_events_by_flow ON ledger_events (flow, at, asked)",
            "CREATE INDEX ledger_events_by_run ON ledger_events (run, position)",
            "CREATE INDEX ledger_events_by_edge ON ledger_events (edge) WHERE edge IS NOT NULL",
            "CREATE INDEX ledger_events_by_shape ON ledger_events (shape) WHERE shape IS NOT NULL",
            "CREATE INDEX ledger_events_by_gone ON ledger_events (gone) WHERE gone IS NOT NULL",
            "CREATE INDEX ledger_events_by_log ON ledger_events (log_id, position)",
        ),
    ),
)


def key_of(*names: str) -> bytes:
    """What stands for names in an index."""
    fields = (name.encode() for name in names)
    return hashlib.sha256(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).digest()[:16]


def row_of(position: int, log_id: str, event: Event, body: bytes) -> dict[str, object]:
    """The columns of an event."""
    asked, denied, gone = event.kind == "asked", event.kind == "denied", event.kind in ("denied", "voided")
    edge = asked and event.before is not None
    return {
        "position": position,
        "log_id": log_id,
        "at": event.at,
        "principal": key_of(event.principal),
        "pair": key_of(event.principal, event.activity),
        "flow": key_of(event.workflow_type, event.activity),
        "run": key_of(event.run),
        "edge": key_of(event.workflow_type, event.before or "", event.activity) if edge else None,
        "shape": key_of(event.activity, event.shape) if asked else None,
        "asked": 1 if asked else -1 if event.kind == "voided" else 0,
        "denied": int(denied),
        "cost": event.cost if asked else -event.cost,
        "took": event.took,
        "gone": event.of if gone else None,
        "body": body,
    }


def _kept() -> ColumnElement[bool]:
    """It was neither denied nor voided."""
    later = events.alias("later")
    return ~exists(select(later.c.position).where(later.c.gone == events.c.position).correlate(events))


def _stands(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists(select(events.c.position).where(events.c.asked == 1, condition, _kept()))


def _total(column: ColumnElement[int], *where: ColumnElement[bool]) -> Any:
    return select(func.coalesce(func.sum(column), 0)).where(*where).scalar_subquery()


def _numbers() -> Select[Any]:
    """Made once: making it takes longer than asking it."""
    c, now = events.c, bindparam("now", type_=BigInteger)
    mine, pair, flow, run = (c[name] == bindparam(name) for name in ("principal", "pair", "flow", "run"))
    return select(
        _total(c.asked, pair, c.at > now - MINUTE).label("last_minute"),
        _total(c.asked, pair, c.at > now - HOUR).label("last_hour"),
        _total(c.asked, pair, c.at > now - DAY).label("last_day"),
        _total(c.denied, mine, c.at > now - HOUR).label("denials_last_hour"),
        _total(c.asked, flow, c.at > now - HOUR).label("workflow_last_hour"),
        _total(c.asked, run).label("run_count"),
        _total(c.denied, run).label("run_denials"),
        _total(c.took, run).label("run_took"),
        _total(c.cost, run).label("run_cost"),
        _total(c.cost, mine, c.at > now - DAY).label("cost_last_day"),
        _stands(pair).label("ran"),
        _stands(c.edge == bindparam("edge")).label("transition_seen"),
        _stands(c.shape == bindparam("shape")).label("shape_seen"),
    )


def _before() -> Select[Any]:
    c = events.c
    wanted = and_(c.run == bindparam("run"), c.asked == 1, c.edge.is_not(None), _kept())
    return select(c.body).where(wanted).order_by(c.position.desc()).limit(1)


_NUMBERS, _BEFORE = _numbers(), _before()


def numbers_of(db: Connection, event: Event) -> Numbers:
    """What is known before an event that is asked, in the words of :func:`exequatur.behavior.tally.tally`.

    Raises:
        EvidenceError: A sum is none.
    """
    asked = {
        "now": event.at,
        "principal": key_of(event.principal),
        "pair": key_of(event.principal, event.activity),
        "flow": key_of(event.workflow_type, event.activity),
        "run": key_of(event.run),
        "edge": key_of(event.workflow_type, event.before or "", event.activity),
        "shape": key_of(event.activity, event.shape),
    }
    row = dict(db.execute(_NUMBERS, asked).mappings().one())
    ran, transition, shape = (bool(row.pop(name)) for name in ("ran", "transition_seen", "shape_seen"))
    try:
        sums = {name: int(value) for name, value in row.items()}
    except (TypeError, ValueError) as err:
        raise EvidenceError("the ledger holds a value of a wrong type: it was edited") from err
    return Numbers(novel=not ran, transition_seen=transition, shape_seen=shape, **sums)


def before_of(db: Connection, run: str) -> bytes | None:
    """The body of what a run asked for last and was not refused; retries are not among them."""
    body: bytes | None = db.execute(_BEFORE, {"run": key_of(run)}).scalar_one_or_none()
    return body
