"""The reference agent as the console's demo page offers it: option ``--demo workflows.console_demo:DEMO``.

What it takes, what it does with that, and what can be seen of it. Each visitor gets a ledger of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

from temporalio.contrib.pydantic import pydantic_data_converter

from exequatur import Principal
from exequatur.console.sandbox.application import Choice, Edit, Example, Fact, Input, Planned, Program, Step, Value
from workflows import agent
from workflows.activities import Deletion, Export, Migration, Operations, Refund
from workflows.agent import LedgerMigration, OperationsAgent, Plan, RefundCase, RefundDesk
from workflows.ledger import Ledger

BOT = Principal("Agent", "ops-bot", attributes={"region": "EU"}, parents=['Role::"operations"'])
STRAY = Principal("Agent", "stray")
DANA = Principal("User", "dana")
FAY = Principal("User", "fay")

_LEDGER, _EXPORTS = "ledger.db", "exports"
_CUSTOMERS = {
    "c-1": ("Ada Okafor", "o-1001", "EU"),
    "c-2": ("Bruno Sato", "o-1002", "EU"),
    "c-3": ("Carla Weiss", "o-1003", "US"),
}
"""Name, order and region, as the ledger has them."""
_PRINCIPALS = {"bot": BOT, "dana": DANA, "stray": STRAY}
_FIELDS = {"contact": ["name", "email"], "cards": ["name", "email", "card_number"]}


_DELETED_BY = 'principal in Role::"data-protection",'
_DELETED_BY_OPERATIONS = 'principal in Role::"operations",'
_NO_AGENTS = """@id("deletions-by-people")
@reason("deleting records is decided by a person, never by an agent")
forbid (
  principal is Agent,
  action == Action::"delete_records",
  resource
);
"""
_Asked: TypeAlias = tuple[Step, Any]
"""A step, and the argument of its activity."""


class OperationsDemo:
    """The agent that refunds, exports and deletes, and the long migration."""

    title = "An agent in customer operations"
    about = (
        "This agent refunds orders, exports customers and deletes them, because somebody, or some prompt, told it to. "
        "Its own code checks nobody's rights: the gate stands before every step and asks the policies."
    )
    inputs = (
        Input(
            "activity",
            "What the agent is told to do",
            "choice",
            "complaint",
            choices=(
                Choice("complaint", "Settle a complaint (three steps)"),
                Choice("refund", "Refund an order"),
                Choice("export", "Export the customers of a region"),
                Choice("delete", "Delete a customer"),
                Choice("migrate", "Migrate the ledger (ten seconds)"),
            ),
        ),
        Input(
            "customer",
            "Customer",
            "choice",
            "c-1",
            choices=tuple(
                Choice(key, f"{name}, {region}, order {order}") for key, (name, order, region) in _CUSTOMERS.items()
            ),
            only=("activity", ("complaint", "refund", "export", "delete")),
        ),
        Input(
            "amount",
            "Amount to refund",
            "amount",
            "42.50",
            least=Decimal("-100000.00"),
            most=Decimal("100000.00"),
            hint="Up to 500.00 the agent refunds alone, up to 5000.00 with somebody of finance, above that never.",
            only=("activity", ("complaint", "refund")),
        ),
        Input(
            "fields",
            "What is exported",
            "choice",
            "contact",
            choices=(Choice("contact", "Names and e-mail addresses"), Choice("cards", "Card numbers as well")),
            only=("activity", ("export",)),
        ),
        Input(
            "batch",
            "Entries in one batch",
            "whole",
            "10",
            least=5,
            most=1000,
            hint="A batch of more than 100 locks the ledger for everybody else.",
            only=("activity", ("migrate",)),
        ),
        Input(
            "principal",
            "On whose behalf",
            "choice",
            "bot",
            choices=(
                Choice("bot", "ops-bot, an agent of operations"),
                Choice("dana", "Dana, of data protection"),
                Choice("stray", "An agent without any role"),
            ),
        ),
    )
    examples = (
        Example("A complaint of three steps", {"activity": "complaint", "amount": "42.50"}),
        Example("A refund within the limit", {"activity": "refund", "amount": "42.50"}),
        Example("A refund above the limit", {"activity": "refund", "customer": "c-2", "amount": "9000.00"}),
        Example("A refund that finance must agree to", {"activity": "refund", "customer": "c-3", "amount": "700.00"}),
        Example("A long migration, to revoke while it runs", {"activity": "migrate", "batch": "10"}),
    )
    edits = (
        Edit(
            "Let nobody refund more than 40.00",
            "refunds.cedar",
            (
                ("above 5000.00 is", "above 40.00 is"),
                ('greaterThan(decimal("5000.00"))', 'greaterThan(decimal("40.00"))'),
            ),
        ),
        Edit("Ask finance from 20.00 on", "refunds.cedar", (("500.00", "20.00"),)),
        Edit("Let 9000.00 pass, if finance agrees", "refunds.cedar", (("5000.00", "50000.00"),)),
        Edit("Let operations delete", "personal-data.cedar", ((_DELETED_BY, _DELETED_BY_OPERATIONS), (_NO_AGENTS, ""))),
        Edit("Stop every migration, also one that runs", "maintenance.cedar", (("batch > 100", "batch > 0"),)),
        Edit("Break it: one bracket too many", "refunds.cedar", (("permit (", "permit (("),)),
    )
    policies = Path(__file__).resolve().parent.parent / "policies"
    files = ("refunds.cedar", "personal-data.cedar", "maintenance.cedar", "starts.cedar", "approvals.cedar")
    approver = FAY
    converter = pydantic_data_converter

    def program(self, folder: Path) -> Program:
        operations = Operations(Ledger.create(folder / _LEDGER), folder / _EXPORTS)
        return Program(
            workflows=[OperationsAgent, RefundDesk, RefundCase, LedgerMigration],
            activities=[
                operations.refund_order,
                operations.export_customers,
                operations.delete_records,
                operations.migrate_ledger,
            ],
        )

    def plan(self, values: Mapping[str, Value]) -> Planned:
        name, order, region = _CUSTOMERS[str(values["customer"])]
        activity, principal = values["activity"], _PRINCIPALS[str(values["principal"])]
        amount = Decimal(values["amount"])
        export: _Asked = (
            Step("export_customers", f"Export the customers of {region}"),
            Export(region, _FIELDS[str(values["fields"])]),
        )
        refund: _Asked = (
            Step("refund_order", f"Refund {amount:.2f} of order {order} to {name}"),
            Refund(order, amount, "arrived broken"),
        )
        delete: _Asked = (Step("delete_records", f"Delete {name}"), Deletion([str(values["customer"])], "asked us to"))
        if activity == "migrate":
            batch = int(values["batch"])
            step = Step("migrate_ledger", f"Migrate 2,000 entries, {batch} at a time")
            return Planned("Migrate the ledger", "LedgerMigration", Migration(batch, 0.05), principal, (step,))
        title, steps = {
            "complaint": (f"Settle the complaint of {name}", (export, refund, delete)),
            "refund": (f"Refund {amount:.2f} to {name}", (refund,)),
            "export": (f"Export the customers of {region}", (export,)),
            "delete": (f"Delete {name}", (delete,)),
        }[str(activity)]
        plan = Plan([agent.Step(step.activity, argument) for step, argument in steps])
        return Planned(title, "OperationsAgent", plan, principal, tuple(step for step, _ in steps))

    def facts(self, folder: Path) -> tuple[Fact, ...]:
        ledger = Ledger(folder / _LEDGER)
        refunds = ", ".join(f"{amount:.2f} of {order}" for order, amount in ledger.refunds()) or "none"
        names = ", ".join(each["name"] for each in ledger.customers()) or "none"
        exports = folder / _EXPORTS
        files = len(list(exports.iterdir())) if exports.is_dir() else 0
        migrated, entries = ledger.migrated()
        return (
            Fact("Refunds paid", refunds),
            Fact("Customers", names),
            Fact("Files exported", str(files)),
            Fact("Entries migrated", f"{migrated:,} of {entries:,}"),
        )


DEMO = OperationsDemo()
