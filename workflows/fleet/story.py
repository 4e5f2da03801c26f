"""The scenes of the fleet. Each does one thing to running processes and says what came of it."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from workflows.fleet.issuer import Issuer
from workflows.fleet.parts import WORKERS, until
from workflows.fleet.stage import AUTHORITY_READY, Fared, Stage, among
from workflows.processes import Child
from workflows.scene import Outcome, Scene

_LOAD = 12
"""Runs of a load."""
_EVERY = 0.4
"""Seconds between two starts of a load."""
_PAID = ("o-1003:0.10", "o-1003:0.10", "o-1004:0.10")
"""What each run of a load pays, before it tries what nobody may."""
_FORBIDDEN = "o-1002:9000.00"
_SHIPPED = 20.0
"""Seconds after which all evidence should be in the store."""


async def a_refund(stage: Stage) -> Outcome:
    stage.say(
        "A client process shows its token to the authority, gets a grant and starts a run; one of two workers does it."
    )
    fared = await stage.run("refund", stage.fleet.bot, "--refund", "o-1001:42.50")
    keys = sorted(path.parent.name for path in stage.fleet.folder.glob("*/keys"))
    stage.fact(f"folders with authority keys: {', '.join(keys)}")
    ok = fared.how == "completed" and stage.refunds() == [("o-1001", Decimal("42.50"))] and keys == ["authority"]
    return Outcome(f"{fared}; {len(stage.refunds())} refund paid", ok)


async def a_refund_too_large(stage: Stage) -> Outcome:
    stage.say("The same client asks for 9000.00, which nobody may.")
    before = stage.refunds()
    fared = await stage.run("refund-too-large", stage.fleet.bot, "--refund", _FORBIDDEN)
    ok = fared.how == "AuthorizationDenied" and fared.policies == ("refunds-limit",) and stage.refunds() == before
    return Outcome(f"{fared}; ledger {_unchanged(stage, before)}", ok)


async def tokens_that_are_good_for_nothing(stage: Stage) -> Outcome:
    stage.say("Somebody without a role, somebody whose token has ended, and somebody who signs tokens for themselves.")
    before = stage.refunds()
    forger = Issuer(stage.fleet.folder / "forger")
    tokens = {
        "intern": stage.fleet.issuer.token("ivy"),
        "ended": stage.fleet.issuer.token("ops-bot", groups=("agents", "operations"), seconds=-600, name="ended"),
        "forged": forger.token("ops-bot", groups=("agents", "operations")),
    }
    runs = (stage.run(f"by-{name}", token, "--refund", "o-1001:1.00") for name, token in tokens.items())
    fared = await asyncio.gather(*runs)
    refused = [each for each in fared if not each.started and each.how == "AuthorizationDenied"]
    return Outcome(
        f"{len(refused)} of {len(fared)} refused a grant; ledger {_unchanged(stage, before)}",
        len(refused) == len(fared) and stage.refunds() == before,
    )


async def the_authority_is_killed(stage: Stage) -> Outcome:
    stage.say(
        f"{_LOAD} runs start, {_EVERY} s apart. Each pays three small refunds, and then tries 9000.00. In the middle "
        "of it the authority is killed, and started again. What runs goes on; who wants to start meanwhile is told to "
        "try again later."
    )
    before = len(stage.refunds())
    client = _load(stage, "outage")
    await until("some runs have ended", lambda: client.log.read_text().count("{") >= 3)
    stage.child("authority").signal(signal.SIGKILL)
    began, logged = time.monotonic(), stage.child("authority").logged()
    await until("a start is refused", lambda: '"started": false' in client.log.read_text())
    authority = stage.fleet.start_authority()
    await until("the authority serves again", lambda: authority.has_logged(AUTHORITY_READY, logged))
    stage.fact(f"the authority was away for {time.monotonic() - began:.1f} s")
    after = await stage.run("after-the-outage", stage.fleet.bot, "--refund", "o-1001:1.00")
    fared = await stage.fared(client)
    away = [each for each in fared if not each.started]
    ok = bool(away) and all(each.how == "AuthorizationUnavailable" for each in away) and after.how == "completed"
    return _judged(stage, fared, len(stage.refunds()) - before - 1, ok, f"{len(away)} not started meanwhile")


async def keys_are_rotated(stage: Stage) -> Outcome:
    stage.say("The same load again. In the middle of it the keys for grants and for workers' credentials are rotated.")
    before, known = len(stage.refunds()), _signing(stage)
    client = _load(stage, "rotation")
    await until("some runs have ended", lambda: client.log.read_text().count("{") >= 3)
    for role in ("grant", "credential"):
        stage.fleet.exequatur("keys", "rotate", role, "--overlap", "3s", "--state", "authority")
    fared = await stage.fared(client)
    await until("the new keys sign", lambda: not set(_signing(stage).values()) & {known["grant"], known["credential"]})
    last = await stage.run("after-the-rotation", stage.fleet.bot, "--refund", "o-1001:1.00")
    stage.fact(f"grants were signed by {known['grant'][:12]}, and are by {_signing(stage)['grant'][:12]}")
    ok = all(each.started for each in fared) and last.how == "completed"
    return _judged(stage, fared, len(stage.refunds()) - before - 1, ok, "every start granted")


async def a_running_migration_is_revoked(stage: Stage) -> Outcome:
    stage.say("A migration heartbeats after each entry. Somebody on call asks the authority to revoke it.")
    client = stage.fleet.start_client("migration", stage.fleet.bot, "--migrate")
    await until("the migration has begun", lambda: stage.fleet.ledger.migrated()[0] >= 10)
    _revoke(stage, "--workflow", "migration", "--reason", "the ledger is needed")
    began = time.monotonic()
    [fared] = await stage.fared(client)
    stage.fact(f"the client knew {time.monotonic() - began:.1f} s after the command had ended")
    return await _stopped(stage, fared)


async def a_source_file_is_changed(stage: Stage) -> Outcome:
    stage.say("worker-a is stopped, so worker-b does the next migration. Then a source file of worker-b is changed.")
    await asyncio.to_thread(stage.child("worker-a").stop)
    begun = stage.fleet.ledger.migrated()[0]
    client = stage.fleet.start_client("migration-changed", stage.fleet.bot, "--migrate")
    await until("the migration goes on", lambda: stage.fleet.ledger.migrated()[0] >= begun + 10)
    file = stage.fleet.app("worker-b") / "workflows" / "ledger.py"
    file.write_text(file.read_text(encoding="utf-8") + "\n# a harmless line\n", encoding="utf-8")
    [fared] = await stage.fared(client)
    stopped = await _stopped(stage, fared)
    said = stage.standing("worker-b") or ""
    stage.fact(f"worker-b: {said}")
    stage.fleet.start_worker("worker-a")
    await stage.ready("worker-a")
    other = await stage.run("by-the-other-worker", stage.fleet.bot, "--refund", "o-1001:1.00")
    ok = stopped.ok and "ledger.py" in said and other.how == "completed"
    return Outcome(f"{stopped.happened}; worker-b takes no work, worker-a does", ok)


async def everything_is_stopped(stage: Stage) -> Outcome:
    stage.say("The kill switch, and its lifting.")
    before = stage.refunds()
    _revoke(stage, "--all", "--reason", "incident 512")
    stopped = await stage.run("during-the-incident", stage.fleet.bot, "--refund", "o-1001:1.00")
    unchanged = _unchanged(stage, before)
    feed = json.loads(_revoke(stage, "--list", "--json"))
    number = max(each["number"] for each in feed["entries"])
    _revoke(stage, "--lift", str(number), "--reason", "incident 512 is over")
    await stage.ready("worker-a")
    again = await stage.run("after-the-incident", stage.fleet.bot, "--refund", "o-1001:1.00")
    ok = stopped.how != "completed" and unchanged == "unchanged" and again.how == "completed"
    return Outcome(f"{stopped}; ledger {unchanged}; then {again}", ok)


async def an_audit(stage: Stage) -> Outcome:
    stage.say("An auditor reads every history, and the evidence that all processes shipped to PostgreSQL.")
    files = await stage.keep_histories()
    begun = time.monotonic()
    while True:
        runs = await asyncio.to_thread(_audited, stage, files)
        others = [run for run in runs if run["verdict"] != "verified"]
        # The last records are shipped within seconds.
        if not others or time.monotonic() - begun > _SHIPPED:
            break
    activities = sum(len(run["activities"]) for run in runs)
    stage.fact(f"{activities} activities: each was asked for by its run and decided with policies")
    for run in others:
        stage.fact(f"{run['workflow_id']}: {run['verdict']}: {', '.join(sorted(_codes(run)))}")
    return Outcome(f"{len(runs) - len(others)} of {len(files)} runs verified", not others and len(runs) == len(files))


def _audited(stage: Stage, files: Sequence[Path]) -> list[dict[str, Any]]:
    trust, store = str(stage.fleet.state / "trust.jwks"), stage.fleet.databases[0]
    command = ("audit", "file", "--trust", trust, "--evidence", store, "--json", *map(str, files))
    runs: list[dict[str, Any]] = json.loads(stage.fleet.exequatur(*command, codes=(0, 1, 2)))["runs"]
    return runs


def _codes(run: dict[str, Any]) -> set[str]:
    return {each["code"] for each in run["findings"] if each["severity"] in ("violation", "unchecked")}


async def the_doctor_comes(stage: Stage) -> Outcome:
    stage.say("Last, the doctor looks at what is left of the fleet.")
    states = [part for name in WORKERS for part in ("--state", f"state-{name}")]
    report = json.loads(
        stage.fleet.exequatur(
            "doctor",
            *states,
            "--address",
            stage.fleet.target,
            "--authority",
            stage.fleet.authority,
            "--json",
            codes=(1,),
        )
    )
    problems = [each for each in report["findings"] if each["level"] == "problem"]
    for each in problems:
        stage.fact(f"{each['check']}: {each['text']}")
    only = bool(problems) and all(str(stage.child("worker-b").pid) in each["text"] for each in problems)
    return Outcome(f"{len(problems)} problem, of worker-b" if only else f"{len(problems)} problems", only)


def _load(stage: Stage, name: str) -> Child:
    refunds = [part for each in (*_PAID, _FORBIDDEN) for part in ("--refund", each)]
    return stage.fleet.start_client(name, stage.fleet.bot, "--count", str(_LOAD), "--every", str(_EVERY), *refunds)


def _judged(stage: Stage, fared: Sequence[Fared], paid: int, ok: bool, more: str) -> Outcome:
    """Whether a load has lost nothing and was wrongly allowed nothing."""
    started = among(fared, started=True)
    denied = among(started, how="AuthorizationDenied", policies=("refunds-limit",))
    for each in started:
        if each not in denied:
            stage.fact(f"{each.id}: {each}: {each.message}")
    wrongly = [order for order, amount in stage.refunds() if amount >= 1000]
    whole = len(fared) == _LOAD and len(denied) == len(started) and paid == len(_PAID) * len(started) and not wrongly
    return Outcome(f"{len(started)} of {_LOAD} runs, {paid} refunds, none too large; {more}", ok and whole)


def _signing(stage: Stage) -> dict[str, str]:
    """The key that signs in each role."""
    listed = json.loads(stage.fleet.exequatur("keys", "list", "--state", "authority", "--json"))
    return {each["role"]: each["kid"] for each in listed if each["standing"] == "signs since"}


def _revoke(stage: Stage, *options: str) -> str:
    service = ("--authority", stage.fleet.authority, "--token-file", str(stage.fleet.on_call))
    place = ("--state", "state-on-call", "--authority-ca", str(stage.fleet.tls.ca))
    return stage.fleet.exequatur("revoke", *options, *service, *place)


async def _stopped(stage: Stage, fared: Fared) -> Outcome:
    at, entries = stage.fleet.ledger.migrated()
    await asyncio.sleep(0.5)
    later, _ = stage.fleet.ledger.migrated()
    stage.fact(f"ledger.db: {at} of {entries} entries migrated, {later} a while later")
    return Outcome(f"{fared} at {at} of {entries}", fared.how == "AuthorizationRevoked" and later - at <= 1)


def _unchanged(stage: Stage, before: list[tuple[str, Decimal]]) -> str:
    return "unchanged" if stage.refunds() == before else "CHANGED"


SCENES = (
    Scene("A refund through the fleet", "completed; 1 refund paid", a_refund),
    Scene("A refund above the limit", "denied by refunds-limit; ledger unchanged", a_refund_too_large),
    Scene("Tokens that are good for nothing", "all refused a grant", tokens_that_are_good_for_nothing),
    Scene("The authority is killed under load", "nothing lost, nothing wrongly allowed", the_authority_is_killed),
    Scene("Keys are rotated under load", "nothing lost, every start granted", keys_are_rotated),
    Scene("A running migration is revoked", "AuthorizationRevoked before the end", a_running_migration_is_revoked),
    Scene("A source file is changed", "AuthorizationRevoked; the other worker goes on", a_source_file_is_changed),
    Scene("Everything is stopped, and goes on", "refused; then completed", everything_is_stopped),
    Scene("The fleet is audited", "all runs verified", an_audit),
    Scene("The doctor comes", "names worker-b", the_doctor_comes),
)
