"""``make bench-whatif``: how many recorded decisions a second one core compares, each under an old and a new bundle.

The decisions are refunds, judged by the reference policies and by a copy with another limit. They are read from a
journal, and asked as a history holds them: once all different, once as they repeat. 3,000 a second are promised.
"""

from __future__ import annotations

import argparse
import json
import resource
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from exequatur.audit.recorded import decisions_in
from exequatur.audit.records import Evidence
from exequatur.authoring.whatif.compare import Comparing
from exequatur.authoring.whatif.comparison import Comparison, Recorded, Where
from exequatur.authoring.whatif.held import PlainArguments
from exequatur.lineage.record import COLUMNS, SCHEMA, fold, genesis, record_bytes
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.source import BundleSource, SourceFile, read_folder

POLICIES = Path(__file__).parents[1] / "policies"
LIMIT = 'decimal("500.00")', 'decimal("400.00")'
DIGEST = "A" * 43
LOG = "00112233445566aa"


def bundles() -> tuple[PolicyBundle, PolicyBundle]:
    """The reference policies, and the same with another limit."""
    source = read_folder(POLICIES)
    edited = tuple(SourceFile(each.name, each.text.replace(*LIMIT)) for each in source.policies)
    return PolicyBundle(source), PolicyBundle(replace(source, policies=edited))


def beside(source: BundleSource, count: int) -> BundleSource:
    """The policies with as many more for the same activity, none of which applies."""
    more = "\n".join(
        f'@id("more-{number}") forbid(principal, action == Action::"refund_order", resource)'
        f' when {{ context.run.workflow_type == "Other{number}" }};'
        for number in range(count)
    )
    return replace(source, policies=(*source.policies, SourceFile("zz.cedar", more)))


ABSENT = frozenset({"acting", "approvals"})
"""What a history is known not to hold where nobody acts for another and nobody was asked."""


def facts(number: int) -> dict[str, Any]:
    return {
        "activity": {"type": "refund_order", "id": "1", "attempt": 1, "task_queue": "agents", "local": False},
        "run": {
            "namespace": "default",
            "workflow_id": f"refund-{number}",
            "workflow_type": "OperationsAgent",
            "run_id": f"{number:036}",
            "governed": True,
        },
        "worker": {"id": "spiffe://exequatur.local/worker/host/1", "integrity": "unmeasured"},
        "now": {"__extn": {"fn": "datetime", "arg": "2026-01-31T12:00:00.000Z"}},
    }


def amount(number: int, different: int) -> str:
    return f"{(number % different) % 1000}.{(number % different) // 1000 % 100:02}"


def journal(path: Path, count: int, different: int, bundle: PolicyBundle) -> None:
    """A journal of refunds, as a gate leaves it."""
    head = genesis(LOG)
    with closing(sqlite3.connect(path)) as db:
        for statement in SCHEMA:
            db.execute(statement)
        db.execute("INSERT INTO meta VALUES ('log_id', ?), ('trial', x'')", (LOG,))
        for index in range(count + 1):
            kind, body = "bundle", bundle.source.archive
            if index:
                kind, body = "decision", json.dumps(decision(index, different, bundle), separators=(",", ":")).encode()
            at = 1_769_860_800.0 + index
            head = fold(head, record_bytes(kind, at, None, None, None, body))
            db.execute(
                f"INSERT INTO records ({COLUMNS}) VALUES (?, ?, ?, NULL, NULL, NULL, ?, ?)",
                (index, at, kind, body, head),
            )
        db.commit()


def decision(number: int, different: int, bundle: PolicyBundle) -> dict[str, Any]:
    """A decision record."""
    refund = {"amount": {"__extn": {"fn": "decimal", "arg": amount(number, different)}}, "reason": "it was broken"}
    allowed = 0 < float(amount(number, different)) <= 500
    return {
        "request": DIGEST,
        "request_digest": DIGEST,
        "workflow_id": f"refund-{number}",
        "run_id": f"{number:036}",
        "activity_id": "1",
        "activity_type": "refund_order",
        "attempt": 1,
        "principal": 'Agent::"ops-bot"',
        "vouched": {"attributes": {"region": "emea"}, "parents": ['Role::"operations"']},
        "args": DIGEST,
        "arguments": json.dumps({"refund": refund}),
        "fault": None,
        "facts": json.dumps(facts(number)),
        "decision": "allow" if allowed else "deny",
        "enforced": True,
        "reason": None,
        "policies": [],
        "bundle": bundle.digest,
        "bundle_sequence": 1,
    }


def questions(count: int, different: int) -> Iterator[Recorded]:
    """Refunds as histories hold them."""
    principal = {
        "uid": {"type": "Agent", "id": "ops-bot"},
        "attrs": {"region": "emea"},
        "parents": [{"type": "Role", "id": "operations"}],
    }
    for number in range(count):
        refund = {"order_id": f"o-{number}", "amount": amount(number, different), "reason": "it was broken"}
        where = Where(f"refund-{number}", f"{number:036}", "1", 1_769_860_800.0 + number, "history")
        yield Recorded(
            where, principal, "refund_order", None, PlainArguments((refund,)), facts(number), False, None, ABSENT
        )


def rate(old: PolicyBundle, new: PolicyBundle, asked: Iterable[Recorded]) -> tuple[float, Comparison]:
    """Decisions compared in a second of this process's CPU time."""
    comparing = Comparing(old, new)
    began = time.process_time()
    for each in asked:
        comparing.add(each)
    found = comparing.result()
    return found.asked / (time.process_time() - began), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    old, new = bundles()
    hundred = PolicyBundle(beside(old.source, 100)), PolicyBundle(beside(new.source, 100))
    count = given.decisions
    print(f"{count:,} recorded decisions, each under two bundles; decisions a second of one core, best of the rounds")
    print(f"{'':34} {'13 policies':>12} {'113 policies':>13}")
    with tempfile.TemporaryDirectory(prefix="exequatur-bench-") as scratch:
        for name, different in (("all different", 100_000), ("as they repeat (500 different)", 500)):
            path = Path(scratch) / f"{different}.db"
            journal(path, count, different, old)
            for source in ("journal", "history"):
                rates = []
                for pair in ((old, new), hundred):
                    best = 0.0
                    for _ in range(given.rounds):
                        asked = (
                            decisions_in(Evidence(str(path)), Counter(), known=pair)
                            if source == "journal"
                            else questions(count, different)
                        )
                        measured, found = rate(*pair, asked)
                        best = max(best, measured)
                        if found.asked != count or not found.flips or found.changes["undecidable"]:
                            raise SystemExit(f"{source}: {found}")
                    rates.append(best)
                print(f"{source}, {name:25} {rates[0]:12,.0f} {rates[1]:13,.0f}")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"A journal is read and parsed in that time; most memory: {memory:.0f} MiB.")


if __name__ == "__main__":
    main()
