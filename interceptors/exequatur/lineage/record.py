"""The format of an evidence journal: its file, its records and the chain that links them; reading and verifying it.

Layout, so that an auditor can recompute it in any language (``u32be``: unsigned, ``i64be``: signed, ``f64be``: IEEE
754, all big-endian; ``+``: concatenation)::

    field(x)  = u32be(length of x in bytes) + x; an absent value is ff ff ff ff and nothing more
    record    = field(kind) + field(f64be(at)) + field(request) + field(run) + field(i64be(attempt)) + field(body)
    head(-1)  = SHA-256("exequatur journal v1" + log_id), log_id being the 8 bytes that ``meta`` holds in hex
    head(n)   = SHA-256(head(n-1) + SHA-256(record n))

Text is UTF-8, ``at`` is seconds since 1970, positions run from 0 without a gap. A log whose *end* was cut off is still
a valid shorter log: that is seen by a receipt or checkpoint which names a position and head that it no longer holds.
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exequatur.errors import JournalError

_TAIL = 256  # records whose links are checked when a file is taken over; verify() checks all

SCHEMA = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE records (idx INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, request TEXT, run TEXT,"
    " attempt INTEGER, body BLOB NOT NULL, head BLOB NOT NULL)",
    "CREATE UNIQUE INDEX records_once ON records (request, run, attempt) WHERE request IS NOT NULL",
    "CREATE TABLE pins (grant_id TEXT PRIMARY KEY, first_run TEXT NOT NULL) WITHOUT ROWID",
)
COLUMNS = "idx, at, kind, request, run, attempt, body, head"
_SELECT = f"SELECT {COLUMNS} FROM records"  # noqa: S608 (a constant)
_U32, _I64, _F64 = struct.Struct(">I"), struct.Struct(">q"), struct.Struct(">d")
_ABSENT = b"\xff\xff\xff\xff"


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a record stands.

    Args:
        index: Position in the log, from 0.
        head: Head of the log after this record: SHA-256, base64url without padding.
    """

    index: int
    head: str


@dataclass(frozen=True, slots=True)
class Record:
    """A stored record; the fields are the columns, ``head`` is written as in :class:`Entry`."""

    log_id: str
    index: int
    at: float
    kind: str
    request: str | None
    run: str | None
    attempt: int | None
    body: bytes
    head: str


def record_bytes(kind: str, at: float, request: str | None, run: str | None, attempt: int | None, body: bytes) -> bytes:
    """The bytes of a record that are hashed, as laid out at the head of this module.

    Raises:
        ValueError: Text is not representable in UTF-8, or the attempt does not fit 64 bits.
    """
    if attempt is not None and not 0 <= attempt < 2**63:
        raise ValueError(f"attempt {attempt} is not a count that fits 64 bits")
    fields = (
        kind.encode(),
        _F64.pack(at),
        None if request is None else request.encode(),
        None if run is None else run.encode(),
        None if attempt is None else _I64.pack(attempt),
        body,
    )
    return b"".join(_ABSENT if field is None else _U32.pack(len(field)) + field for field in fields)


def genesis(log_id: str) -> bytes:
    """The head of an empty log.

    Args:
        log_id: 8 bytes in hex.

    Raises:
        ValueError: ``log_id`` is not hex.
    """
    return hashlib.sha256(b"exequatur journal v1" + bytes.fromhex(log_id)).digest()


def fold(head: bytes, record: bytes) -> bytes:
    """The head after a record whose hashed bytes are ``record``."""
    return hashlib.sha256(head + hashlib.sha256(record).digest()).digest()


def read(path: Path) -> Iterator[Record]:
    """Read a journal file, also while its writer runs; the chain is not checked.

    Args:
        path: The ``.db`` file.

    Yields:
        The records that were committed when the reading began, in order.

    Raises:
        JournalError: The file is missing, unreadable, not a journal, or holds a value of a wrong type.
    """
    with FailuresNamed(path), closing(_connect_to_read(path)) as db:
        log_id = log_id_of(db, path)
        for row in db.execute(f"{_SELECT} ORDER BY idx"):
            yield _record(log_id, row, path)


def last_of(path: Path, kind: str) -> tuple[str, bytes | None]:
    """The id of the log in a journal file, and the body of its last record of a kind, if it has one.

    Args:
        path: The ``.db`` file.
        kind: The kind.

    Raises:
        JournalError: The file is missing, unreadable, not a journal, or holds a value of a wrong type.
    """
    with FailuresNamed(path), closing(_connect_to_read(path)) as db:
        log_id = log_id_of(db, path)
        row = db.execute("SELECT body FROM records WHERE kind = ? ORDER BY idx DESC LIMIT 1", (kind,)).fetchone()
    if row is None:
        return log_id, None
    if not isinstance(row[0], bytes):
        raise JournalError(f"{path}: a {kind} record is of a wrong type: the journal was edited")
    return log_id, row[0]


def read_from(path: Path, index: int, count: int, size: int) -> tuple[str, list[Record]]:
    """Read a part of a journal file, and leave the file at once.

    Args:
        path: The ``.db`` file.
        index: Position of the first record, if the log has it.
        count: The most records.
        size: Bytes of bodies after which no further record is read.

    Returns:
        The log's id and the records in order; the chain is not checked.

    Raises:
        JournalError: As for :func:`read`.
    """
    records: list[Record] = []
    with FailuresNamed(path), closing(_connect_to_read(path)) as db:
        log_id = log_id_of(db, path)
        for row in db.execute(f"{_SELECT} WHERE idx >= ? ORDER BY idx LIMIT ?", (index, count)):
            records.append(_record(log_id, row, path))
            size -= len(records[-1].body)
            if size < 0:
                break
    return log_id, records


def length(path: Path) -> tuple[str, int]:
    """The id of the log in a journal file, and how many records it has.

    Args:
        path: The ``.db`` file.

    Raises:
        JournalError: As for :func:`read`.
    """
    with FailuresNamed(path), closing(_connect_to_read(path)) as db:
        log_id = log_id_of(db, path)
        last = db.execute("SELECT max(idx) FROM records").fetchone()[0]
    if not isinstance(last, int | None):
        raise JournalError(f"{path}: a position is of a wrong type: the journal was edited")
    return log_id, 0 if last is None else last + 1


def verify(path: Path) -> int:
    """Recompute the whole chain of a journal file.

    Args:
        path: The ``.db`` file.

    Returns:
        The number of records.

    Raises:
        JournalError: The first record that does not follow from those before it is named; or as for :func:`read`.
    """
    with FailuresNamed(path), closing(_connect_to_read(path)) as db:
        return whole_of(db, log_id_of(db, path), path)[0]


class FailuresNamed:
    """Turns what SQLite and the system raise into a JournalError that names the file and the next step."""

    def __init__(self, path: Path, next_step: str = "") -> None:
        self._path, self._next_step = path, next_step

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error | OSError):
            raise JournalError(f"{self._path}: {error}; {self._next_step or next_step(error)}") from error


def next_step(error: Exception) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return "keep the file for the audit and move it elsewhere, a new journal is then begun"
    if code == sqlite3.SQLITE_FULL:
        return "free some space"
    return "check that the folder exists on a healthy disk with space left and belongs to this user"


def _connect_to_read(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise JournalError(f"{path}: no such file; name the .db file of a journal")
    uri = path.absolute().as_uri()
    db = sqlite3.connect(f"{uri}?mode=ro", uri=True, isolation_level=None)
    try:
        db.execute("SELECT 1 FROM sqlite_master")
    except sqlite3.OperationalError:
        db.close()
        # A closed journal on read-only storage: SQLite cannot make its shared-memory file there and needs none.
        if path.with_name(path.name + "-wal").exists():
            raise
        db = sqlite3.connect(f"{uri}?immutable=1", uri=True, isolation_level=None)
    except sqlite3.Error:
        db.close()
        raise
    return db


def log_id_of(db: sqlite3.Connection, path: Path) -> str:
    # Compared as a whole: without the unique index a request could be used twice, and a trigger could do anything.
    schema = {sql for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
    row = db.execute("SELECT value FROM meta WHERE name = 'log_id'").fetchone() if schema == set(SCHEMA) else None
    if row is None or not isinstance(row[0], str) or len(row[0]) != 16 or set(row[0]) - set("0123456789abcdef"):
        raise JournalError(f"{path}: a database, but not a journal of this version; move it out of the journal folder")
    return row[0]


def _record(log_id: str, row: tuple[Any, ...], path: Path) -> Record:
    index, at, kind, request, run, attempt, body, head = row
    typed = (
        isinstance(at, float)
        and isinstance(kind, str)
        and isinstance(request, str | None)
        and isinstance(run, str | None)
        and isinstance(attempt, int | None)
        and isinstance(body, bytes)
        and isinstance(head, bytes)
        and (attempt is None or attempt >= 0)
    )
    if not typed:
        raise JournalError(f"{path}: record {index} holds a value of a wrong type: it was edited; keep the file")
    return Record(log_id, index, at, kind, request, run, attempt, body, head_text(head))


def _follow(head: bytes, index: int, record: Record, path: Path) -> bytes:
    expected = fold(head, record_bytes(record.kind, record.at, record.request, record.run, record.attempt, record.body))
    if record.index != index or record.head != head_text(expected):
        raise JournalError(
            f"{path}: record {index} does not follow from those before it: the log was edited, reordered or cut; "
            "keep the file for the audit and move it elsewhere"
        )
    return expected


def head_text(head: bytes) -> str:
    return urlsafe_b64encode(head).rstrip(b"=").decode()


def tail_of(db: sqlite3.Connection, log_id: str, path: Path) -> tuple[int, bytes]:
    """Size and head of the log, after its last links were checked."""
    rows = db.execute(f"{_SELECT} ORDER BY idx DESC LIMIT ?", (_TAIL + 1,)).fetchall()
    records = [_record(log_id, row, path) for row in reversed(rows)]
    if len(records) <= _TAIL:
        size, head = 0, genesis(log_id)
    else:
        first = records.pop(0)
        size, head = first.index + 1, urlsafe_b64decode(first.head + "=")
    for record in records:
        head = _follow(head, size, record, path)
        size += 1
    return size, head


def whole_of(db: sqlite3.Connection, log_id: str, path: Path) -> tuple[int, bytes]:
    """Size and head of the log, after all of its links were checked."""
    size, head = 0, genesis(log_id)
    for row in db.execute(f"{_SELECT} ORDER BY idx"):
        head = _follow(head, size, _record(log_id, row, path), path)
        size += 1
    return size, head
