"""The ledger's database: its tables, and what is asked of them.

Names are found by the first 16 bytes of their SHA-256, so that an index holds any name of any length. What events add
up to is kept by minute and by hour, so that a question reads as much of a ledger of a million events as of an empty
one: a window of time is its first minute, event by event, the minutes up to a full hour, and the hours from there.
"""

from __future__ import annotations

import hashlib
from collections import Counter
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
    bindparam,
    func,
    literal_column,
    select,
    update,
)

from exequatur.errors import EvidenceError
from exequatur.lineage.event import DAY, HOUR, MINUTE, Event, Numbers
from exequatur.lineage.store_records import insert_into
from exequatur.lineage.store_schema import Layout

_ROWS = 100
"""In a statement; databases bound its parameters."""
_SUMMED = ("asked", "denied", "cost", "took")

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
    Column("kept", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
"""``kept``: something was asked, and neither denied nor voided."""
sums = Table(
    "ledger_sums",
    _metadata,
    Column("name", LargeBinary, primary_key=True),
    Column("slot", BigInteger, primary_key=True),
    *(Column(name, BigInteger, nullable=False) for name in _SUMMED),
)
"""``slot``: the number of the minute or hour since 1970; 0 where all time is added up."""

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
            " took BIGINT NOT NULL, kept INTEGER NOT NULL, body {bytes} NOT NULL)",
            "CREATE TABLE ledger_sums (name {bytes} NOT NULL, slot BIGINT NOT NULL, asked BIGINT NOT NULL,"
            " denied BIGINT NOT NULL, cost BIGINT NOT NULL, took BIGINT NOT NULL, PRIMARY KEY (name, slot))",
            "CREATE INDEX ledger_pins_by_end ON ledger_pins (until) WHERE until IS NOT NULL",
            # With what is added up, so that the rows need not be visited.
            "CREATE INDEX ledger_events_by_principal ON ledger_events (principal, at, denied, cost, took)",
            "CREATE INDEX ledger_events_by_pair ON ledger_events (pair, at, asked)",
            "CREATE INDEX ledger_events_by_flow ON ledger_events (flow, at, asked)",
            "CREATE INDEX ledger_events_by_run ON ledger_events (run, position) WHERE kept = 1 AND edge IS NOT NULL",
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
    asked, keys = event.kind == "asked", _keys(event)
    return {
        "position": position,
        "log_id": log_id,
        "at": event.at,
        **{name: keys[name] for name in ("principal", "pair", "flow", "run")},
        "edge": keys["edge"] if asked and event.before is not None else None,
        "shape": keys["shape"] if asked else None,
        **_adds(event),
        "kept": int(asked),
        "body": body,
    }


def _keys(event: Event) -> dict[str, bytes]:
    return {
        "principal": key_of(event.principal),
        "pair": key_of(event.principal, event.activity),
        "flow": key_of(event.workflow_type, event.activity),
        "run": key_of(event.run),
        "edge": key_of(event.workflow_type, event.before or "", event.activity),
        "shape": key_of(event.activity, event.shape),
    }


def _adds(event: Event) -> dict[str, int]:
    """What an event adds to sums."""
    asked = event.kind == "asked"
    return {
        "asked": 1 if asked else -1 if event.kind == "voided" else 0,
        "denied": int(event.kind == "denied"),
        "cost": event.cost if asked else -event.cost,
        "took": event.took,
    }


def _sum(what: str, key: bytes) -> bytes:
    """The name of a sum; the same key may stand for different things."""
    return hashlib.sha256(what.encode() + key).digest()[:16]


class Sums:
    """What events add to the sums, written when it is asked for, or at the end."""

    def __init__(self, db: Connection) -> None:
        self._db = db
        self._added: dict[tuple[bytes, int], Counter[str]] = {}

    def add(self, event: Event) -> None:
        """Add an event, whose row is there.

        Args:
            event: The event.
        """
        keys, adds = _keys(event), _adds(event)
        for name, which in (("principal", ("denied", "cost", "took")), ("pair", ("asked",)), ("flow", ("asked",))):
            added = {column: adds[column] for column in which}
            self._add(name + "/minute", keys[name], event.at // MINUTE, added)
            self._add(name + "/hour", keys[name], event.at // HOUR, added)
        self._add("run", keys["run"], 0, adds)
        if event.kind == "asked":
            edge = keys["edge"] if event.before is not None else None
            self._keep(1, keys["pair"], edge, keys["shape"])
        elif event.kind != "ended":
            gone = self._db.execute(_TAKE_BACK, {"of": event.of}).one_or_none()
            if gone is not None:  # it was kept until now
                self._keep(-1, gone.pair, gone.edge, gone.shape)

    def _keep(self, count: int, pair: bytes, edge: bytes | None, shape: bytes | None) -> None:
        for name, key in (("ran", pair), ("edge", edge), ("shape", shape)):
            if key is not None:
                self._add(name, key, 0, {"asked": count})

    def _add(self, what: str, key: bytes, slot: int, added: dict[str, int]) -> None:
        if any(added.values()):
            self._added.setdefault((_sum(what, key), slot), Counter()).update(added)

    def write(self) -> None:
        """Write what was added. In the order of the names, as everybody does."""
        rows = [
            {"name": name, "slot": slot, **{each: added[each] for each in _SUMMED}}
            for (name, slot), added in sorted(self._added.items(), key=lambda item: item[0])
        ]
        self._added = {}
        for begin in range(0, len(rows), _ROWS):
            some = insert_into(self._db, sums).values(rows[begin : begin + _ROWS])
            more = {each: sums.c[each] + some.excluded[each] for each in _SUMMED}
            self._db.execute(some.on_conflict_do_update(index_elements=["name", "slot"], set_=more))


_TAKE_BACK = (
    update(events)
    .where(events.c.position == bindparam("of", type_=BigInteger), events.c.kept == 1)
    .values(kept=0)
    .returning(events.c.pair, events.c.edge, events.c.shape)
)


def _total(column: ColumnElement[int], *where: ColumnElement[bool]) -> Any:
    return select(func.coalesce(func.sum(column), 0)).where(*where).scalar_subquery()


def _parameter(name: str) -> Any:
    return bindparam(name, type_=BigInteger)


def _since(what: str, column: str, window: str) -> Any:
    """What is added up since a window's begin; that is in a minute of which some is not in it, and so in an hour."""
    begin, minute, hour, minutes = (_parameter(f"{window}_{name}") for name in ("begin", "minute", "hour", "minutes"))
    first = _total(events.c[column], events.c[what] == bindparam(what), events.c.at > begin, events.c.at < minute)
    by_minute, by_hour = (sums.c.name == bindparam(f"{what}_{name}") for name in ("minute", "hour"))
    rest = _total(sums.c[column], by_minute, sums.c.slot >= minutes, sums.c.slot < hour * (HOUR // MINUTE))
    return first + rest + _total(sums.c[column], by_hour, sums.c.slot >= hour)


def _ever(what: str, column: str) -> Any:
    return _total(sums.c[column], sums.c.name == bindparam(f"{what}_ever"), sums.c.slot == 0)


def _numbers() -> Select[Any]:
    """Made once: making it takes longer than asking it."""
    return select(
        _since("pair", "asked", "MINUTE").label("last_minute"),
        _since("pair", "asked", "HOUR").label("last_hour"),
        _since("pair", "asked", "DAY").label("last_day"),
        _since("principal", "denied", "HOUR").label("denials_last_hour"),
        _since("flow", "asked", "HOUR").label("workflow_last_hour"),
        _ever("run", "asked").label("run_count"),
        _ever("run", "denied").label("run_denials"),
        _ever("run", "took").label("run_took"),
        _ever("run", "cost").label("run_cost"),
        _since("principal", "cost", "DAY").label("cost_last_day"),
        _since("principal", "took", "DAY").label("took_last_day"),
        _ever("ran", "asked").label("ran"),
        _ever("edge", "asked").label("transition_seen"),
        _ever("shape", "asked").label("shape_seen"),
    )


def _before() -> Select[Any]:
    c = events.c
    wanted = (c.run == bindparam("run"), c.kept == literal_column("1"), c.edge.is_not(None))
    return select(c.body).where(*wanted).order_by(c.position.desc()).limit(1)


_NUMBERS, _BEFORE = _numbers(), _before()


def numbers_of(db: Connection, event: Event) -> Numbers:
    """What is known before an event that is asked, in the words of :func:`exequatur.behavior.tally.tally`.

    Raises:
        EvidenceError: A sum is none.
    """
    keys = _keys(event)
    asked: dict[str, object] = {}
    for name in ("principal", "pair", "flow"):
        asked |= {name: keys[name]} | {
            f"{name}_{each}": _sum(f"{name}/{each}", keys[name]) for each in ("minute", "hour")
        }
    for name, key in (("run", "run"), ("ran", "pair"), ("edge", "edge"), ("shape", "shape")):
        asked[f"{name}_ever"] = _sum(name, keys[key])
    for name, window in (("MINUTE", MINUTE), ("HOUR", HOUR), ("DAY", DAY)):
        begin = event.at - window
        minutes, hour = begin // MINUTE + 1, begin // HOUR + 1
        asked |= {f"{name}_begin": begin, f"{name}_minute": minutes * MINUTE, f"{name}_hour": hour}
        asked[f"{name}_minutes"] = minutes
    row = dict(db.execute(_NUMBERS, asked).mappings().one())
    try:
        found = {name: int(value) for name, value in row.items()}
    except (TypeError, ValueError) as err:
        raise EvidenceError("the ledger holds a value of a wrong type: it was edited") from err
    ran, transition, shape = (found.pop(name) > 0 for name in ("ran", "transition_seen", "shape_seen"))
    return Numbers(novel=not ran, transition_seen=transition, shape_seen=shape, **found)


def before_of(db: Connection, run: str) -> bytes | None:
    """The body of what a run asked for last and was not refused; retries are not among them."""
    body: bytes | None = db.execute(_BEFORE, {"run": key_of(run)}).scalar_one_or_none()
    return body
