"""The scenes of the demo. Each does one thing on a real Temporal server and says what came of it."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from exequatur import AuthorizationPlugin, Principal, acting_as
from exequatur.approvals import OpenChallenge, approve, list_challenges
from exequatur.failures import AuthorizationDenied
from exequatur.lineage.record import read
from workflows import rogue
from workflows.activities import Deletion, Export, Migration, Refund
from workflows.agent import LedgerMigration, OperationsAgent, Plan, RefundDesk, Step
from workflows.auditing import audit, edited_history
from workflows.scene import Outcome, Scene
from workflows.stage import OBSERVED_QUEUE, PATIENCE, QUEUE, Ending, Stage, with_headers

AGENT = Principal("Agent", "ops-bot", attributes={"region": "EU"}, parents=['Role::"operations"'])
PERSON = Principal("User", "dana")
FINANCE = Principal("User", "fay")
LIMIT, LOWER_LIMIT = "5000.00", "50.00"
_LONG_ENOUGH_TO_NOTICE = 0.6
"""Seconds; the migration would have migrated some 100 entries more in them."""


def refund(order_id: str, amount: str, reason: str = "arrived broken") -> Step:
    return Step("refund_order", Refund(order_id, Decimal(amount), reason))


async def allowed_refund(stage: Stage) -> Outcome:
    stage.say(f"{AGENT} is granted a run, and its agent decides to refund 42.50.")
    ending = await stage.decide("refund-allowed", refund("o-1001", "42.50"))
    stage.show_ledger()
    paid = stage.refunds()
    ok = ending.is_("completed") and paid == [("o-1001", Decimal("42.50"))]
    return Outcome(f"{ending}; {len(paid)} refund paid", ok)


async def refund_above_the_limit(stage: Stage) -> Outcome:
    stage.say("The agent is talked into refunding 9000.00, which nobody may.")
    before = stage.refunds()
    ending = await stage.decide("refund-too-much", refund("o-1002", "9000.00"))
    stage.show_ledger()
    return _refused(ending, "refunds-limit", unchanged=stage.refunds() == before, what="ledger")


async def agreed_refund(stage: Stage) -> Outcome:
    stage.say("700.00 is for two people: the run waits until somebody of finance agrees to this very refund.")
    before = stage.refunds()
    handle = await stage.client.start_workflow(
        OperationsAgent.run, Plan([refund("o-1003", "700.00")]), id="refund-agreed", task_queue=QUEUE
    )
    challenge = await asked(stage, handle.id)
    waited = stage.refunds() == before
    stage.fact(f"asked: {challenge.claims.activity_type} {challenge.claims.arguments}")
    refusal = "nobody was refused"
    try:
        await approve(stage.client, stage.plugin, challenge, principal=PERSON)
    except AuthorizationDenied as err:
        refusal = err.message
    stage.fact(refusal)
    await approve(stage.client, stage.plugin, challenge, principal=FINANCE, reason="the customer called")
    ending = await stage.end_of(handle)
    stage.show_ledger()
    paid = [each for each in stage.refunds() if each not in before]
    ok = waited and str(PERSON) in refusal and ending.is_("completed") and paid == [("o-1003", Decimal("700.00"))]
    return Outcome(f"{ending} after {FINANCE} agreed; {len(paid)} refund paid", ok)


async def asked(stage: Stage, workflow_id: str) -> OpenChallenge:
    """The challenge that a run waits for.

    Raises:
        TimeoutError: It has not asked anybody in time.
    """
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while asyncio.get_running_loop().time() < deadline:
        listing = await list_challenges(stage.client, stage.plugin, workflow_id=workflow_id)
        if listing.challenges:
            return listing.challenges[0]
        await asyncio.sleep(0.1)
    raise TimeoutError(f"{workflow_id} asked nobody")


async def restricted_child(stage: Stage) -> Outcome:
    stage.say("A desk hands a case to a child workflow that may only refund, and 50.00 at most, whatever is permitted.")
    before = stage.refunds()
    endings = []
    for name, step in (
        ("desk-small", refund("o-1004", "30.00")),
        ("desk-large", refund("o-1004", "60.00")),
        ("desk-export", Step("export_customers", Export("EU", ["name"]))),
    ):
        handle = await stage.client.start_workflow(RefundDesk.run, Plan([step]), id=name, task_queue=QUEUE)
        endings.append(await stage.end_of(handle))
        await stage.end_of(stage.client.get_workflow_handle(f"{name}-case"))
    stage.show_ledger()
    paid = [amount for order, amount in stage.refunds() if (order, amount) not in before]
    small, large, export = endings
    ok = small.is_("completed") and large.is_("AuthorizationDenied", "restriction/case-limit")
    ok = ok and export.is_("GrantRejected") and paid == [Decimal("30.00")]
    return Outcome(f"30.00 {small}; 60.00 {large}; an export {export.how}", ok)


async def forbidden_fields(stage: Stage) -> Outcome:
    stage.say("The agent first exports names and e-mail addresses, which it may, and then card numbers.")
    allowed = await stage.decide("export-names", Step("export_customers", Export("EU", ["name", "email"])))
    before = list(stage.exports.iterdir()) if stage.exports.is_dir() else []
    ending = await stage.decide("export-cards", Step("export_customers", Export("EU", ["name", "card_number"])))
    files = list(stage.exports.iterdir()) if stage.exports.is_dir() else []
    stage.fact(f"exports: {len(files)} file")
    outcome = _refused(ending, "exports-without-cards", unchanged=files == before, what="exports")
    return Outcome(outcome.happened, outcome.ok and allowed.is_("completed") and len(files) == 1)


async def deletion_by_an_agent(stage: Stage) -> Outcome:
    stage.say("The agent decides to delete a customer.")
    before = stage.ledger.customers()
    ending = await stage.decide("delete-by-agent", Step("delete_records", Deletion(["c-3"], "tidying up")))
    stage.fact(f"ledger.db, customers: {len(stage.ledger.customers())}")
    return _refused(ending, "deletions-by-people", unchanged=stage.ledger.customers() == before, what="ledger")


async def deletion_by_a_person(stage: Stage) -> Outcome:
    stage.say(f"{PERSON} starts the same agent with the same plan; her role is in entities.json.")
    with acting_as(PERSON):
        ending = await stage.decide("delete-by-person", Step("delete_records", Deletion(["c-3"], "asked us to")))
    left = [customer["id"] for customer in stage.ledger.customers()]
    stage.fact(f"ledger.db, customers: {len(left)}")
    return Outcome(f"{ending}; {len(left)} customers left", ending.is_("completed") and left == ["c-1", "c-2"])


async def revoked_migration(stage: Stage) -> Outcome:
    stage.say("A migration of 2000 entries heartbeats after each batch. Half a second in, somebody stops it.")
    handle = await stage.client.start_workflow(
        LedgerMigration.run, Migration(batch=10, pause=0.05), id="migrate-entries", task_queue=QUEUE
    )
    await stage.until("the migration has begun", lambda: stage.ledger.migrated()[0] >= 100)
    stage.plugin.revoke(workflow="migrate-entries", reason="the on-call engineer stopped it")
    ending = await stage.end_of(handle)
    stopped_at, entries = stage.ledger.migrated()
    await asyncio.sleep(_LONG_ENOUGH_TO_NOTICE)
    later, _ = stage.ledger.migrated()
    # What was under way when the attempt ended may still have finished its batch.
    stands = later - stopped_at <= 10 and later < entries
    stage.fact(f"ledger.db: {stopped_at} of {entries} entries migrated, {later} a while later")
    return Outcome(f"{ending} at {stopped_at} of {entries}", ending.is_("AuthorizationRevoked") and stands)


async def edited_policy(stage: Stage) -> Outcome:
    stage.say("75.00 is paid. Then refunds.cedar is edited: the limit 5000.00 becomes 50.00. No process is restarted.")
    first = await stage.decide("refund-before-edit", refund("o-1001", "75.00"))
    before = stage.refunds()
    file = stage.policies / "refunds.cedar"
    text = file.read_text(encoding="utf-8")
    if LIMIT not in text:
        return Outcome(f"{file.name} has no limit to edit", False)
    mark = stage.worker.logged()
    file.write_text(text.replace(LIMIT, LOWER_LIMIT), encoding="utf-8")
    took = await stage.until(
        "the edited policies are in force", lambda: stage.worker.has_logged("is in force", since=mark)
    )
    stage.fact(f"in force in the worker after {took:.1f} s")
    ending = await stage.decide("refund-after-edit", refund("o-1004", "75.00"))
    outcome = _refused(ending, "refunds-limit", unchanged=stage.refunds() == before, what="ledger")
    return Outcome(f"{first}, then {outcome.happened}", outcome.ok and first.is_("completed"))


async def broken_policy(stage: Stage) -> Outcome:
    stage.say("The next edit is broken Cedar. It is refused, and what was in force stays in force.")
    file = stage.policies / "refunds.cedar"
    good = file.read_text(encoding="utf-8")
    mark = stage.worker.logged()
    file.write_text("permit (principal, action, resource\n" + good, encoding="utf-8")
    try:
        await stage.until(
            "the broken policies are refused", lambda: stage.worker.has_logged("were refused", since=mark)
        )
        stage.fact(stage.worker.tail(1).partition(": ")[2])
        small = await stage.decide("refund-small", refund("o-1004", "20.00"))
        before = stage.refunds()
        large = await stage.decide("refund-large", refund("o-1004", "75.00"))
        stage.show_ledger()
    finally:
        file.write_text(good.replace(LOWER_LIMIT, LIMIT), encoding="utf-8")
    denied = _refused(large, "refunds-limit", unchanged=stage.refunds() == before, what="ledger")
    return Outcome(f"refused; 20.00 {small}; 75.00 {denied.happened}", denied.ok and small.is_("completed"))


async def no_grant(stage: Stage) -> Outcome:
    stage.say("Somebody starts the agent with a plain Temporal client, past the plugin.")
    before = stage.refunds()
    ending = await stage.decide("refund-without-grant", refund("o-1003", "10.00"), client=stage.stranger)
    return _rejected(ending, "GrantRejected", unchanged=stage.refunds() == before)


async def copied_grant(stage: Stage) -> Outcome:
    stage.say("The next one copies the grant out of the first run's history and starts another workflow with it.")
    history = await stage.stranger.get_workflow_handle("refund-allowed").fetch_history()
    header = history.events[0].workflow_execution_started_event_attributes.header.fields
    before = stage.refunds()
    ending = await stage.decide(
        "refund-copied-grant", refund("o-1001", "42.50"), client=with_headers(stage.stranger, dict(header))
    )
    return _rejected(ending, "GrantRejected", unchanged=stage.refunds() == before)


async def rogue_worker(stage: Stage) -> Outcome:
    stage.say(
        "Our worker leaves its activities to others, and a worker without the plugin polls the same task queue. It "
        "claims to have paid."
    )
    await asyncio.to_thread(stage.worker.stop)
    stage.worker = stage.start_worker("worker-workflows-only", "--workflows-only")
    return await _answered_by_a_rogue(stage, "rogue", "refund-by-rogue")


async def forged_receipt(stage: Stage) -> Outcome:
    stage.say(
        "Another rogue takes a real receipt with its credential from the first run's history, rewrites it for this "
        "request and signs it with its own key."
    )
    return await _answered_by_a_rogue(stage, "rogue-forging", "refund-by-forger", "--forge", "refund-allowed")


async def _answered_by_a_rogue(stage: Stage, name: str, workflow_id: str, *more: str) -> Outcome:
    child = stage.processes.python(name, "workflows.rogue", "--target", stage.target, "--task-queue", QUEUE, *more)
    await stage.ready(child, rogue.READY)
    await stage.ready(stage.worker)
    before = stage.refunds()
    ending = await stage.decide(workflow_id, refund("o-1003", "10.00"))
    stage.show_ledger()
    await asyncio.to_thread(child.stop)
    return _rejected(ending, "ReceiptRejected", unchanged=stage.refunds() == before)


async def observed_agent(stage: Stage) -> Outcome:
    stage.say("The same agent where the gate only observes: the refund that was denied goes through, on the record.")
    plugin = AuthorizationPlugin.embedded(
        stage.policies, state_dir=stage.folder / "state", principal=AGENT, mode="observe"
    )
    client = await Client.connect(stage.target, data_converter=pydantic_data_converter, plugins=[plugin])
    await stage.ready(stage.observer)
    ending = await stage.decide("refund-observed", refund("o-1002", "9000.00"), client=client, queue=OBSERVED_QUEUE)
    stage.show_ledger()
    paid = ("o-1002", Decimal("9000.00")) in stage.refunds()
    [decision] = [each for each in _decisions(stage) if each["workflow_id"] == "refund-observed"]
    recorded = f"{decision['decision']}, enforced {json.dumps(decision['enforced'])}"
    stage.fact(f"journal: {recorded}: {decision['reason']}")
    return Outcome(
        f"{ending}; journal: {recorded}",
        ending.is_("completed") and paid and decision["decision"] == "deny" and decision["enforced"] is False,
    )


def _decisions(stage: Stage) -> list[dict[str, Any]]:
    return [json.loads(record.body) for path in stage.journals for record in read(path) if record.kind == "decision"]


def _refused(ending: Ending, policy: str, *, unchanged: bool, what: str) -> Outcome:
    denied = ending.is_("AuthorizationDenied", policy)
    how = f"denied by {policy}" if denied else str(ending)
    return Outcome(f"{how}; {what} {'unchanged' if unchanged else 'CHANGED'}", denied and unchanged)


def _rejected(ending: Ending, how: str, *, unchanged: bool) -> Outcome:
    return Outcome(f"{ending}; ledger {'unchanged' if unchanged else 'CHANGED'}", ending.is_(how) and unchanged)


SCENES = (
    Scene("A refund within the limit", "completed; 1 refund paid", allowed_refund),
    Scene("A refund above the limit", "denied by refunds-limit; ledger unchanged", refund_above_the_limit),
    Scene("A refund that a person agrees to", "completed after finance agreed; 1 refund paid", agreed_refund),
    Scene("A child with fewer rights", "30.00 completed; 60.00 and an export denied", restricted_child),
    Scene("An export with card numbers", "denied by exports-without-cards; exports unchanged", forbidden_fields),
    Scene("A deletion by an agent", "denied by deletions-by-people; ledger unchanged", deletion_by_an_agent),
    Scene("The same deletion by a person", "completed; 2 customers left", deletion_by_a_person),
    Scene("A running migration is revoked", "AuthorizationRevoked before the end", revoked_migration),
    Scene("A policy is edited at work", "completed, then denied by refunds-limit", edited_policy),
    Scene("A broken policy edit", "refused; the old ones stay in force", broken_policy),
    Scene("A run without a grant", "GrantRejected; ledger unchanged", no_grant),
    Scene("A copied grant", "GrantRejected; ledger unchanged", copied_grant),
    Scene("A rogue without the plugin", "ReceiptRejected; ledger unchanged", rogue_worker),
    Scene("A rogue that forges a receipt", "ReceiptRejected; ledger unchanged", forged_receipt),
    Scene("The same agent, only observed", "completed; journal: deny, enforced false", observed_agent),
    Scene("An audit of all these runs", "4 runs not authorized, all others verified", audit),
    Scene("A history is edited", "verified, and when it was edited violated", edited_history),
)
