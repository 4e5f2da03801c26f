"""The evidence store's database: its tables, how they came to be, and how it is connected to.

One schema for SQLite and PostgreSQL. Text that comes from outside is stored as its UTF-8 bytes: it is then compared
byte by byte whatever the database's collation and encoding, and may hold what PostgreSQL's text cannot (U+0000).

The schema grows by the ordered steps below, which are never edited once released. With so few tables that is all that a
migration tool would do here, without a second package and with the same transaction on both databases.
"""

from __future__ import annotations

import os
import sqlite3
import ssl
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Dialect,
    Double,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
    create_engine,
    event,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from exequatur.errors import ConfigurationError, EvidenceError, StoreUnavailableError

_PATIENCE = 60.0
"""Seconds that PostgreSQL may be silent before the connection counts as lost, so that no dead network holds us up."""
_LOCK_PATIENCE = 30.0
"""Seconds that a writer waits for another writer of the same SQLite file."""
_MIGRATION_LOCK = 0x657865717561
"""PostgreSQL's name for our advisory lock: "exequa"."""


class Exact(TypeDecorator[str]):
    """Text as its UTF-8 bytes."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        return None if value is None else value.encode()

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        if value is None:
            return None
        if not isinstance(value, bytes):
            raise EvidenceError("the evidence store holds a value of a wrong type: it was edited")
        return value.decode()


_metadata = MetaData()
version = Table("evidence_version", _metadata, Column("version", Integer, primary_key=True))
logs = Table(
    "evidence_logs",
    _metadata,
    Column("log_id", String, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("head", String, nullable=False),
)
records = Table(
    "evidence_records",
    _metadata,
    Column("log_id", String, primary_key=True),
    Column("idx", BigInteger, primary_key=True),
    Column("at", Double, nullable=False),
    Column("kind", Exact, nullable=False),
    Column("request", Exact),
    Column("run", Exact),
    Column("attempt", BigInteger),
    Column("body", LargeBinary, nullable=False),
    Column("previous", String, nullable=False),
    Column("head", String, nullable=False),
    Column("workflow_id", Exact),
    Column("run_id", Exact),
    Column("bundle", String),
    Column("address", String),
)
checkpoints = Table(
    "evidence_checkpoints",
    _metadata,
    Column("address", String, primary_key=True),
    Column("origin_digest", String, nullable=False),
    Column("origin", Exact, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", Exact, nullable=False),
)
releases = Table(
    "policy_releases",
    _metadata,
    Column("name", String, primary_key=True),
    Column("channel", String, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("address", String, nullable=False),
    Column("file", LargeBinary, nullable=False),
)

STEPS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE evidence_logs (log_id TEXT PRIMARY KEY, size BIGINT NOT NULL, head TEXT NOT NULL)",
        "CREATE TABLE evidence_records (log_id TEXT NOT NULL, idx BIGINT NOT NULL, at DOUBLE PRECISION NOT NULL,"
        " kind {bytes} NOT NULL, request {bytes}, run {bytes}, attempt BIGINT, body {bytes} NOT NULL,"
        " previous TEXT NOT NULL, head TEXT NOT NULL, workflow_id {bytes}, run_id {bytes}, bundle TEXT, address TEXT,"
        " PRIMARY KEY (log_id, idx))",
        "CREATE UNIQUE INDEX evidence_records_by_previous ON evidence_records (log_id, previous)",
        "CREATE INDEX evidence_records_by_run ON evidence_records (run_id, log_id, idx) WHERE run_id IS NOT NULL",
        "CREATE INDEX evidence_records_by_workflow ON evidence_records (workflow_id, run_id, log_id, idx)"
        " WHERE workflow_id IS NOT NULL",
        "CREATE INDEX evidence_records_by_address ON evidence_records (address) WHERE address IS NOT NULL",
        "CREATE INDEX evidence_records_by_time ON evidence_records (at)",
        "CREATE TABLE evidence_checkpoints (address TEXT PRIMARY KEY, origin_digest TEXT NOT NULL,"
        " origin {bytes} NOT NULL, size BIGINT NOT NULL, root {bytes} NOT NULL, note {bytes} NOT NULL)",
        "CREATE INDEX evidence_checkpoints_by_origin ON evidence_checkpoints (origin_digest, size, address)",
    ),
    (
        "CREATE TABLE policy_releases (name TEXT NOT NULL, channel TEXT NOT NULL, sequence BIGINT NOT NULL,"
        " address TEXT NOT NULL, file {bytes} NOT NULL, PRIMARY KEY (name, channel, sequence))",
    ),
)
"""What takes a store from version 0 to 1, from 1 to 2, and so on; ``{bytes}`` is the database's type for bytes."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The tables that belong together in a database, and how they came to be.

    Args:
        what: What messages call it, with its article.
        version: The table with the number of the steps that were taken.
        steps: As :data:`STEPS`.
    """

    what: str
    version: Table
    steps: tuple[tuple[str, ...], ...]


def connect(where: str | Path, *, create: bool, layout: Layout | None = None) -> Engine:
    """Connect to a store and bring its tables up to this version.

    Args:
        where: URL or path, as for :meth:`exequatur.lineage.store.EvidenceStore.open`.
        create: Whether a SQLite file that does not exist is made.
        layout: Its tables; those of an evidence store where nothing is given.

    Raises:
        ConfigurationError: It is not the URL of a store.
        EvidenceError: It is another kind of database, or of a later version.
        StoreUnavailableError: It cannot be reached or written.
    """
    engine = _engine(where, create=create)
    _connected.add(engine)
    try:
        with failures_named(engine):
            _migrate(engine, layout or Layout("an evidence store", version, STEPS))
    except BaseException:
        engine.dispose()
        raise
    return engine


def stored_version(where: str | Path, layout: Layout | None = None) -> tuple[str, int]:
    """What messages call a store, and the version of its tables, 0 when it has none; nothing in it is changed.

    Raises:
        ConfigurationError: It is not the URL of a store.
        EvidenceError: It is another kind of database, or of a later version.
        StoreUnavailableError: It cannot be reached or read.
    """
    engine = _engine(where, create=False)
    try:
        with transaction(engine, writes=False) as db:
            return name_of(engine), _version(db, layout or Layout("an evidence store", version, STEPS))
    finally:
        engine.dispose()


def _engine(where: str | Path, *, create: bool) -> Engine:
    url, arguments = _url(where)
    if url.get_backend_name() == "sqlite":
        _make_file(url, create=create)
        memory = not url.database
        engine = create_engine(
            url,
            hide_parameters=True,  # a body never gets into a message
            connect_args={"timeout": _LOCK_PATIENCE, "check_same_thread": False},
            poolclass=QueuePool,
            # A database in memory lives as long as its one connection.
            **({"pool_size": 1, "max_overflow": 0} if memory else {}),
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        engine = create_engine(
            url,
            hide_parameters=True,
            connect_args={"timeout": _PATIENCE, "application_name": "exequatur", **arguments},
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,
        )
        event.listen(engine, "do_connect", _connect_postgresql)
    return engine


def name_of(engine: Engine) -> str:
    """What messages call a store: its URL without the password."""
    return engine.url.render_as_string(hide_password=True)


@contextmanager
def failures_named(engine: Engine) -> Iterator[None]:
    """Turn what the database and the system raise into errors that name the store and the next step.

    Raises:
        EvidenceError: The store holds what nobody wrote into it.
        StoreUnavailableError: Anything else that went wrong with it.
    """
    try:
        yield
    except UnicodeDecodeError as err:
        raise EvidenceError(f"{name_of(engine)}: holds text that is not UTF-8: it was edited") from err
    except (SQLAlchemyError, OSError) as err:
        raise StoreUnavailableError(f"{name_of(engine)}: {_reason(err)}") from err


@contextmanager
def transaction(engine: Engine, *, writes: bool) -> Iterator[Connection]:
    """One transaction; on SQLite a writing one holds the write lock from its beginning.

    Raises:
        EvidenceError: As for :func:`failures_named`.
    """
    with failures_named(engine), engine.connect().execution_options(exequatur_writes=writes) as db, db.begin():
        yield db


def _url(where: str | Path) -> tuple[URL, dict[str, Any]]:
    written = str(where)
    if "://" not in written:
        return URL.create("sqlite+pysqlite", database=written), {}
    try:
        url = make_url(written)
        backend, driver = url.get_backend_name(), url.drivername.partition("+")[2]
    except (ArgumentError, ValueError) as err:
        raise ConfigurationError("the evidence store is not named by a URL that can be read; check its port") from err
    if backend == "sqlite" and driver in {"", "pysqlite"}:
        if url.query or url.host:
            raise ConfigurationError(
                "the URL of a SQLite evidence store is sqlite:/// and a path: a fourth slash begins an absolute one"
            )
        memory = url.database in {None, "", ":memory:"}
        return url.set(drivername="sqlite+pysqlite", database=None if memory else url.database), {}
    if backend in {"postgresql", "postgres"} and driver in {"", "pg8000"}:
        if not url.username:  # the driver needs it
            raise ConfigurationError(
                "the URL of a PostgreSQL evidence store names no user: postgresql://USER@HOST/DATABASE"
            )
        arguments = _postgresql_arguments(url)
        return url.set(drivername="postgresql+pg8000", query={}), arguments
    raise ConfigurationError(
        f"an evidence store cannot be kept in {url.drivername}; write sqlite:///PATH or postgresql://USER@HOST/DATABASE"
    )


def _postgresql_arguments(url: URL) -> dict[str, Any]:
    """The parameters of a PostgreSQL URL, named and meant as in PostgreSQL's own client library."""
    query = dict(url.query)
    mode, authority = query.pop("sslmode", "prefer"), query.pop("sslrootcert", None)
    arguments: dict[str, Any] = {}
    if (socket := query.pop("unix_sock", None)) is not None:
        arguments["unix_sock"] = socket
    if query or mode not in {"disable", "prefer", "require", "verify-full"}:
        raise ConfigurationError(
            "the URL of a PostgreSQL evidence store takes sslmode=disable, prefer, require or verify-full, sslrootcert="
            f" and unix_sock=; remove {', '.join(sorted(query)) or 'the other sslmode'}"
        )
    if mode == "disable" or (mode == "prefer" and "unix_sock" in arguments):
        arguments["ssl_context"] = False
    elif mode != "prefer":  # which is what the driver does by itself
        try:
            context = ssl.create_default_context(cafile=str(authority) if authority is not None else None)
        except OSError as err:  # ssl.SSLError is one
            raise ConfigurationError(f"sslrootcert of the evidence store cannot be read: {err}") from err
        if mode == "require" and authority is None:  # encrypted, to whoever answers
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        arguments["ssl_context"] = context
    return arguments


def _make_file(url: URL, *, create: bool) -> None:
    if not url.database:
        return
    path = Path(url.database)
    if not create and not path.is_file():
        raise EvidenceError(f"{path}: no such file; name the evidence store that the workers ship to")
    try:
        with suppress(FileExistsError):
            # Owner-only from the beginning; SQLite gives its further files the same permissions.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as err:
        raise StoreUnavailableError(
            f"{path}: {err.strerror}; name a file in a folder that this user can write"
        ) from err


def _connect_postgresql(dialect: Any, _: object, arguments: Any, named: Any) -> Any:
    db = dialect.loaded_dbapi.connect(*arguments, **named)
    close, stream = db.close, db._sock

    def let_go() -> None:
        # When the server is gone, the driver fails to take its leave and leaves its socket open.
        with suppress(dialect.loaded_dbapi.Error):
            close()
        with suppress(OSError):
            stream.close()

    db.close = let_go
    return db


def _prepare_sqlite(db: sqlite3.Connection, _: object) -> None:
    db.isolation_level = None  # transactions begin as _begin_sqlite says, not before the first INSERT
    db.execute("PRAGMA synchronous = FULL")


def _begin_sqlite(db: Connection) -> None:
    # A transaction that begins to write after it has read can lose against another one and cannot wait for it.
    db.exec_driver_sql("BEGIN IMMEDIATE" if db.get_execution_options().get("exequatur_writes") else "BEGIN")


def _migrate(engine: Engine, layout: Layout) -> None:
    steps = layout.steps
    with transaction(engine, writes=False) as db:
        found = _version(db, layout)
    if found < len(steps):
        with transaction(engine, writes=True) as db:
            if engine.dialect.name == "postgresql":
                db.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            found = _version(db, layout)  # somebody else may have been first
            for step in steps[found:]:
                for statement in step:
                    bytes_type = "BYTEA" if engine.dialect.name == "postgresql" else "BLOB"
                    db.exec_driver_sql(statement.format(bytes=bytes_type))
            db.execute(update(layout.version).values(version=len(steps)))
    if engine.dialect.name == "sqlite":
        _write_ahead(engine)


def _version(db: Connection, layout: Layout) -> int:
    """The version of the store that is there; 0, with the table that holds it, when there is none."""
    table = layout.version
    tables = inspect(db).get_table_names()
    if table.name not in tables:
        if tables and db.dialect.name == "sqlite":
            # Another application may share a PostgreSQL database; a file with tables is somebody else's, or a journal.
            raise EvidenceError(f"{name_of(db.engine)}: a database, but not {layout.what}; name another file")
        if not db.get_execution_options().get("exequatur_writes"):
            return 0
        db.exec_driver_sql(f"CREATE TABLE {table.name} (version INTEGER PRIMARY KEY)")
        db.execute(insert(table).values(version=0))
    found: int = db.execute(select(table.c.version)).scalar_one()
    if found > len(layout.steps):
        raise EvidenceError(
            f"{name_of(db.engine)}: {layout.what} of version {found}, and this release knows {len(layout.steps)}; "
            "upgrade exequatur"
        )
    return found


def _write_ahead(engine: Engine) -> None:
    """Let readers go on while somebody writes; the file remembers it."""
    # Not through a transaction: within one it cannot be changed.
    with closing(engine.raw_connection()) as db, suppress(sqlite3.OperationalError):  # others may be in the file
        db.cursor().execute("PRAGMA journal_mode = WAL")


_connected: weakref.WeakSet[Engine] = weakref.WeakSet()
_inherited: list[object] = []


def _disown() -> None:
    """In a forked child: use none of the parent's connections, not even to close them."""
    for engine in list(_connected):
        _inherited.append(engine.pool)
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_disown)


def _reason(err: Exception) -> str:
    origin = err.orig if isinstance(err, DBAPIError) else err
    detail = getattr(origin, "args", ())
    if detail and isinstance(detail[0], dict):  # what PostgreSQL answered
        return f"{detail[0].get('M')} ({detail[0].get('C')}); check the URL and the rights of its user"
    if isinstance(origin, sqlite3.Error):
        return (
            f"{origin}; check that the file is an evidence store on a healthy disk with space left and is this user's"
        )
    cause = getattr(origin, "__cause__", None)
    return f"{origin}{f' ({cause})' if cause else ''}; check that the database runs and can be reached from here"
