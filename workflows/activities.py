"""What the agent can do. None of it checks anybody's rights: policies judge the arguments before a line of it runs.

``@action`` only sorts the activities into groups, so that a policy can speak of all that moves money.
"""

import csv
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from temporalio import activity
from temporalio.exceptions import ApplicationError

from exequatur import action
from workflows.ledger import Ledger


@dataclass(frozen=True)
class Refund:
    """Pay back a part of an order."""

    order_id: str
    amount: Decimal
    reason: str


@dataclass(frozen=True)
class Export:
    """Write fields of a region's customers to a file."""

    region: str
    fields: list[str]


@dataclass(frozen=True)
class Deletion:
    """Delete customers."""

    customer_ids: list[str]
    reason: str


@dataclass(frozen=True)
class Migration:
    """Bring the ledger's entries into the new format."""

    batch: int
    """Entries in one transaction."""
    pause: float
    """Seconds between two of them, so that others get the ledger too."""


class Operations:
    """The activities, on one ledger.

    Args:
        ledger: The ledger.
        exports: Folder for exported files.
    """

    def __init__(self, ledger: Ledger, exports: Path) -> None:
        self._ledger = ledger
        self._exports = exports

    @activity.defn
    @action(groups=["money"])
    def refund_order(self, refund: Refund) -> str:
        info = activity.info()
        try:
            # A retry of this activity must not pay twice.
            self._ledger.refund(
                f"{info.workflow_run_id}/{info.activity_id}", refund.order_id, refund.amount, refund.reason
            )
        except ValueError as err:
            raise ApplicationError(str(err), type="RefundImpossible", non_retryable=True) from err
        return f"refunded {refund.amount} of {refund.order_id}"

    @activity.defn
    @action(groups=["personal-data"])
    def export_customers(self, export: Export) -> str:
        info = activity.info()
        rows = self._ledger.customers(export.region)
        self._exports.mkdir(exist_ok=True)
        file = self._exports / f"{info.workflow_run_id}-{info.activity_id}.csv"
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, export.fields, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return f"exported {len(rows)} customers to {file.name}"

    @activity.defn
    @action(groups=["personal-data"])
    def delete_records(self, deletion: Deletion) -> str:
        return f"deleted {self._ledger.delete_customers(deletion.customer_ids)} customers"

    @activity.defn
    @action(groups=["maintenance"])
    def migrate_ledger(self, migration: Migration) -> int:
        """Heartbeats the last migrated entry, from which the next attempt goes on."""
        details = activity.info().heartbeat_details
        last = int(details[0]) if details else 0
        while (reached := self._ledger.migrate(last, migration.batch)) > last:
            last = reached
            activity.heartbeat(last)
            time.sleep(migration.pause)
        return last
