"""Reports made by hand, for what prints and serialises them."""

from exequatur.audit.report import ActivityReport, Decided, Finding, Report, RunReport, finding

START = 1_767_261_600.0
BUNDLE = "n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg"
HOSTILE = "<script>alert(1)</script>\"'>[bold red]x[/] {{ 7*7 }} \x1b[31m \u202egrant \x9b2J :smile: \r\n&amp;"
"""What an attacker would name a thing: markup of HTML, Rich and Jinja, terminal sequences and a direction override."""


def decided(attempt: int = 1, **changes: object) -> Decided:
    fields: dict[str, object] = {
        "attempt": attempt,
        "decision": "allow",
        "enforced": True,
        "at": START + 1,
        "policies": ("refunds-under-500",),
        "reason": None,
        "bundle": BUNDLE,
        "recomputed": True,
    }
    return Decided.model_validate(fields | changes)


def activity(number: int = 1, **changes: object) -> ActivityReport:
    fields: dict[str, object] = {
        "event_id": 5 + 6 * (number - 1),
        "activity_id": str(number),
        "activity_type": "refund_payment",
        "scheduled": START + number,
        "closed": START + number + 0.25,
        "attempts": 1,
        "outcome": "completed",
        "worker": "spiffe://acme.example/payments/worker-7",
        "requested_by": "spiffe://acme.example/agents/worker-2",
        "decisions": (decided(),),
        "proof": "receipt",
    }
    return ActivityReport.model_validate(fields | changes)


def run(*activities: ActivityReport, findings: tuple[Finding, ...] = (), **changes: object) -> RunReport:
    fields: dict[str, object] = {
        "workflow_id": "refund-4711",
        "run_id": "0198c1c2-7d7a-7c3e-9d56-a7b2f5ad0c11",
        "workflow_type": "RefundAgent",
        "governed": True,
        "principal": 'User::"alice@acme.example"',
        "grant": "0198c1c2-6f00-7aaa-8888-1234567890ab",
        "issuer": "https://authority.acme.example",
        "mode": "enforce",
        "started": START,
        "closed": START + 10,
        "outcome": "completed",
        "events": 40,
        "activities": activities,
        "findings": findings,
    }
    return RunReport.model_validate(fields | changes)


VERIFIED = Report(runs=(run(activity(), activity(2), checkpoints=1, checkpointed_events=40),))
VIOLATED = Report(
    runs=(
        run(
            activity(),
            activity(2, attempts=3, decisions=(decided(1), decided(2), decided(3, recomputed=False))),
            activity(
                3,
                outcome="denied",
                proof="denial",
                decisions=(
                    decided(decision="deny", policies=("no-refund-over-500",), reason="refunds over 500 need approval"),
                ),
            ),
            activity(4, outcome="completed", worker=None, decisions=(), proof="none"),
            findings=(
                finding("time-unproven", "No checkpoint covers this run."),
                finding("receipt-missing", "The result of event 27 has no receipt.", event_id=27, activity_id="4"),
                finding("decision-differs", "Attempt 3 was allowed, and is refused.", event_id=11, activity_id="2"),
            ),
        ),
        *VERIFIED.runs,
    )
)
UNCHECKED = Report(
    runs=(run(activity(), findings=(finding("bundle-missing", f"Bundle {BUNDLE} is not there.", event_id=5),)),),
    findings=(finding("history-malformed", "history.json: not the JSON of a workflow history"),),
)
