"""The ledger that the activities change: one SQLite file with customers, orders, refunds and entries.

Amounts are kept in cents. Each method opens the file for itself, so that threads and processes can share a ledger.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

CENT = Decimal("0.01")

_TABLES = """
CREATE TABLE customers (id TEXT PRIMARY KEY, name TEXT, email TEXT, region TEXT, card_number TEXT);
CREATE TABLE orders (id TEXT PRIMARY KEY, customer TEXT REFERENCES customers, cents INTEGER NOT NULL);
CREATE TABLE refunds (key TEXT PRIMARY KEY, order_id TEXT REFERENCES orders, cents INTEGER NOT NULL, reason TEXT);
CREATE TABLE entries (id INTEGER PRIMARY KEY, format INTEGER NOT NULL);
"""
_CUSTOMERS = (
    ("c-1", "Ada Okafor", "ada@example.com", "EU", "4000 0000 0000 0002"),
    ("c-2", "Bruno Sato", "bruno@example.com", "EU", "4000 0000 0000 0010"),
    ("c-3", "Carla Weiss", "carla@example.com", "US", "4000 0000 0000 0028"),
)
_ORDERS = (
    ("o-1001", "c-1", 12_000),
    ("o-1002", "c-2", 1_500_000),
    ("o-1003", "c-3", 80_000),
    ("o-1004", "c-1", 45_000),
)
_ENTRIES = 2_000


class Ledger:
    """A ledger file.

    Args:
        path: The file; :meth:`create` makes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> "Ledger":
        """Make a ledger with customers, orders, and entries in the old format.

        Raises:
            FileExistsError: There is a file already.
        """
        path.touch(exist_ok=False)
        ledger = cls(path)
        with ledger._open() as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(_TABLES)
            db.executemany("INSERT INTO customers VALUES (?, ?, ?, ?, ?)", _CUSTOMERS)
            db.executemany("INSERT INTO orders VALUES (?, ?, ?)", _ORDERS)
            db.executemany("INSERT INTO entries VALUES (?, 1)", ((number,) for number in range(1, _ENTRIES + 1)))
        return ledger

    def refund(self, key: str, order_id: str, amount: Decimal, reason: str) -> None:
        """Pay back a part of an order; the same key pays once.

        Raises:
            ValueError: There is no such order, the refunds would exceed it, or the amount has fractions of a cent.
        """
        if amount % CENT:
            raise ValueError(f"{amount} is not a whole number of cents")
        cents = int(amount / CENT)
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            if db.execute("SELECT 1 FROM refunds WHERE key = ?", (key,)).fetchone():
                return
            left = db.execute(
                "SELECT cents - (SELECT coalesce(sum(cents), 0) FROM refunds WHERE order_id = orders.id) "
                "FROM orders WHERE id = ?",
                (order_id,),
            ).fetchone()
            if left is None:
                raise ValueError(f"there is no order {order_id}")
            if cents > left[0]:
                raise ValueError(f"only {left[0] * CENT} of order {order_id} can still be refunded")
            db.execute("INSERT INTO refunds VALUES (?, ?, ?, ?)", (key, order_id, cents, reason))

    def refunds(self) -> list[tuple[str, Decimal]]:
        """Order and amount of every refund, in the order in which they were paid."""
        rows = self._read("SELECT order_id, cents FROM refunds ORDER BY rowid")
        return [(order_id, cents * CENT) for order_id, cents in rows]

    def customers(self, region: str | None = None) -> list[dict[str, str]]:
        """The customers, of one region or of all."""
        names = ("id", "name", "email", "region", "card_number")
        rows = self._read(
            "SELECT id, name, email, region, card_number FROM customers WHERE ?1 IS NULL OR region = ?1 ORDER BY id",
            (region,),
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def delete_customers(self, ids: Iterable[str]) -> int:
        """Delete customers and return how many there were; their orders stay, without a name."""
        with self._open() as db:
            return sum(db.execute("DELETE FROM customers WHERE id = ?", (each,)).rowcount for each in ids)

    def migrate(self, after: int, count: int) -> int:
        """Bring the next entries into the new format.

        Args:
            after: The last entry that was migrated, 0 at first.
            count: How many.

        Returns:
            The last entry that was migrated now, or ``after`` when none is left.
        """
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            [(last,)] = db.execute(
                "SELECT coalesce(max(id), ?1) FROM (SELECT id FROM entries WHERE id > ?1 ORDER BY id LIMIT ?2)",
                (after, count),
            ).fetchall()
            db.execute("UPDATE entries SET format = 2 WHERE id > ? AND id <= ?", (after, last))
            return int(last)

    def migrated(self) -> tuple[int, int]:
        """How many entries are in the new format, and how many there are."""
        [(migrated, entries)] = self._read("SELECT sum(format = 2), count(*) FROM entries")
        return int(migrated), int(entries)

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._open() as db:
            return db.execute(query, values).fetchall()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=10)) as db, db:
            yield db
