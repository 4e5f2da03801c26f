"""A governed run of any length, signed as the gate signs it: what takes an afternoon to run is made in a minute.

Each activity is six events: scheduled, started, completed, and the workflow task that follows. The statements are real,
the journal is real, the times are a second apart.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import History, HistoryEvent
from temporalio.converter import DataConverter

from benchmarks.gate import POLICIES
from benchmarks.workload import pay, payment
from exequatur.gate.wire import ACTIVITY_HEADER, RECEIPT, START_HEADER, activity_header, payloads_digest, start_header
from exequatur.lineage.chain import fold, genesis
from exequatur.lineage.journal import Journal
from exequatur.lineage.record import Entry
from exequatur.policy.arguments import ActivitySignature, convert_arguments
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.engine import decide
from exequatur.statements.encoding import compact_json, digest
from exequatur.statements.jws import sign
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import (
    Confirmation,
    Grant,
    LogPlace,
    Receipt,
    Request,
    RequestCore,
    Seal,
    WorkflowAuthorization,
    WorkloadCredential,
    short_digest,
)
from exequatur.statements.packing import pack
from exequatur.statements.trust import Anchor, TrustStore

ISSUER, SITE, WORKER = "https://authority.example.org", "example.org/main", "spiffe://example.org/worker/w1"
WORKFLOW, RUN, TYPE, QUEUE = "long-1", "0198c1c2-0000-7000-8000-000000000001", "Sequential", "long"
BEGIN = 1_800_000_000.0


class _Events:
    def __init__(self) -> None:
        self.history = History()

    def add(self, kind: str, at: float) -> HistoryEvent:
        event = self.history.events.add()
        event.event_id = len(self.history.events)
        event.event_type = EventType.Value(f"EVENT_TYPE_{kind}")
        event.event_time.FromMilliseconds(int(at * 1000))
        return event


async def make(folder: Path, activities: int) -> None:
    """Write ``history.bin`` (a History message), ``trust.jwks`` and the journal of a run into a folder."""
    grant_key, credential_key, worker = (SigningKey.generate() for _ in range(3))
    anchors = [(grant_key, Grant.typ), (credential_key, WorkloadCredential.typ)]
    trust = TrustStore(Anchor(kid=key.kid, x=key.x, typ=(typ,), iss=ISSUER, nbf=BEGIN - 86_400) for key, typ in anchors)
    (folder / "trust.jwks").write_bytes(trust.to_jwks())
    bundle = PolicyBundle.from_parts(POLICIES)
    converter = DataConverter.default.payload_converter
    ends = BEGIN + 10.0 * activities + 3600
    credential = sign(
        WorkloadCredential(
            iss=ISSUER, sub=WORKER, aud=SITE, iat=BEGIN - 300, nbf=BEGIN - 300, exp=ends, jti="c1",
            cnf=Confirmation(jwk=worker.public), roles=("request", "receipt", "delegate", "seal"),
            namespaces=("default",), task_queues=(QUEUE,), activities=("pay",),
        ),
        credential_key,
    )  # fmt: skip
    start_input = converter.to_payloads([activities])
    grant = sign(
        Grant(
            iss=ISSUER, sub='Agent::"payer"', aud=f"{SITE}/default", iat=BEGIN - 1, nbf=BEGIN - 1, exp=ends,
            start_by=BEGIN + 60, jti="g1", bundle=bundle.digest, policies=("agents-may-start",), mode="enforce",
            authorization_details=(
                WorkflowAuthorization(
                    workflow_type=TYPE, workflow_id=WORKFLOW, task_queue=QUEUE, activities=("*",),
                    input=payloads_digest(start_input), reuse="once",
                ),
            ),
        ),
        grant_key,
    )  # fmt: skip
    events = _Events()
    started = events.add("WORKFLOW_EXECUTION_STARTED", BEGIN).workflow_execution_started_event_attributes
    started.workflow_type.name, started.workflow_id, started.task_queue.name = TYPE, WORKFLOW, QUEUE
    started.original_execution_run_id = started.first_execution_run_id = RUN
    started.attempt = 1
    started.input.payloads.extend(start_input)
    started.header.fields[START_HEADER].CopyFrom(start_header([grant.text, credential.text]))
    head = genesis(
        namespace="default", workflow_id=WORKFLOW, workflow_type=TYPE, original_run_id=RUN, leaf=grant.digest, seal=None
    )
    signature = ActivitySignature.of(pay)
    seen: tuple[int, ...] = ()
    with Journal.open(folder / "journal") as journal:
        await journal.append("bundle", bundle.source.archive)
        for number in range(1, activities + 1):
            at = BEGIN + 10.0 * number
            task = _workflow_task(events, at)
            order = payment(number)
            payloads = converter.to_payloads([order])
            core = RequestCore(
                grant=grant.digest,
                workflow_id=WORKFLOW,
                original_run_id=RUN,
                seq=number,
                activity_type="pay",
                prev=head,
            )
            request = sign(
                Request(
                    **core.model_dump(), iss=WORKER, jti=core.hash(), iat=at, namespace="default", workflow_type=TYPE,
                    run_id=RUN, first_run_id=RUN, task_queue=QUEUE, args=payloads_digest(payloads), seen=seen,
                    knows=(short_digest(credential.digest),) if number > 1 else (),
                ),
                worker,
            )  # fmt: skip
            head, seen = fold(head, "request", core.hash()), (number,)
            asked = events.add("ACTIVITY_TASK_SCHEDULED", at + 1).activity_task_scheduled_event_attributes
            asked.activity_id, asked.activity_type.name, asked.task_queue.name = str(number), "pay", QUEUE
            asked.workflow_task_completed_event_id = task
            asked.input.payloads.extend(payloads)
            asked.header.fields[ACTIVITY_HEADER].CopyFrom(
                activity_header([request.text], [grant.text, credential.text])
            )
            scheduled = len(events.history.events)
            events.add("ACTIVITY_TASK_STARTED", at + 2).activity_task_started_event_attributes.MergeFrom(
                type(HistoryEvent().activity_task_started_event_attributes)(scheduled_event_id=scheduled, attempt=1)
            )
            facts = _facts(number, at + 2)
            verdict = decide(
                bundle,
                {"uid": {"type": "Agent", "id": "payer"}, "attrs": {}, "parents": []},
                {"type": "Action", "id": "pay"},
                {"type": "Workflow", "id": WORKFLOW},
                convert_arguments(signature, [order]),
                facts,
            )
            text = compact_json(facts).decode()
            decision = {
                "request": core.hash(), "request_digest": request.digest, "workflow_id": WORKFLOW, "run_id": RUN,
                "activity_id": str(number), "activity_type": "pay", "attempt": 1, "principal": 'Agent::"payer"',
                "args": payloads_digest(payloads), "arguments": compact_json(verdict.arguments).decode(), "fault": None,
                "facts": text, "decision": "allow", "enforced": True, "reason": None,
                "policies": [ref.id for ref in verdict.policies], "bundle": bundle.digest, "bundle_sequence": 1,
            }  # fmt: skip
            entry = await _decision(journal, compact_json(decision), core.hash(), at + 2)
            [result] = converter.to_payloads([order.reference])
            receipt = sign(
                Receipt(
                    iss=WORKER, iat=at + 3, request=core.hash(), request_digest=request.digest,
                    activity_id=str(number), activity_type="pay", run_id=RUN, attempt=1, decision="allow",
                    enforced=True, policies=tuple(ref.id for ref in verdict.policies), bundle=bundle.digest,
                    bundle_sequence=1,
                    facts=digest(text), outcome="completed", result=payloads_digest([result]),
                    log=LogPlace(id=journal.log_id, index=entry.index, head=entry.head),
                ),
                worker,
            )  # fmt: skip
            journal.enqueue("receipt", receipt.text.encode())
            head = fold(head, "receipt", receipt.digest)
            done = events.add("ACTIVITY_TASK_COMPLETED", at + 3).activity_task_completed_event_attributes
            done.scheduled_event_id, done.started_event_id = scheduled, scheduled + 1
            done.result.payloads.append(
                Payload(
                    metadata={
                        **result.metadata,
                        RECEIPT: pack([receipt.text], [] if number > 1 else [credential.text]),
                    },
                    data=result.data,
                )
            )
        task = _workflow_task(events, BEGIN + 10.0 * activities + 5)
        end = events.add("WORKFLOW_EXECUTION_COMPLETED", BEGIN + 10.0 * activities + 6)
        end.workflow_execution_completed_event_attributes.workflow_task_completed_event_id = task
        seal = sign(
            Seal(
                iss=WORKER, iat=BEGIN + 10.0 * activities + 6, grant=grant.digest, workflow_id=WORKFLOW,
                workflow_type=TYPE, original_run_id=RUN, run_id=RUN, seq=activities, head=head, outcome="completed",
            ),
            worker,
        )  # fmt: skip
        journal.enqueue("seal", seal.text.encode())
    (folder / "history.bin").write_bytes(events.history.SerializeToString())


async def _decision(journal: Journal, body: bytes, request: str, at: float) -> Entry:
    from unittest import mock

    # The journal dates its records itself; these are to be of the run's time.
    with mock.patch("exequatur.lineage.journal.time.time", return_value=at):
        pending = asyncio.ensure_future(journal.append_decision(body, request=request, run=RUN, attempt=1))
        await asyncio.sleep(0)
    return await pending


def _workflow_task(events: _Events, at: float) -> int:
    events.add("WORKFLOW_TASK_SCHEDULED", at).workflow_task_scheduled_event_attributes.task_queue.name = QUEUE
    scheduled = len(events.history.events)
    events.add("WORKFLOW_TASK_STARTED", at).workflow_task_started_event_attributes.scheduled_event_id = scheduled
    done = events.add("WORKFLOW_TASK_COMPLETED", at).workflow_task_completed_event_attributes
    done.scheduled_event_id, done.started_event_id = scheduled, scheduled + 1
    return scheduled + 2


def _facts(number: int, at: float) -> dict[str, object]:
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "activity": {"type": "pay", "id": str(number), "attempt": 1, "task_queue": QUEUE, "local": False},
        "run": {
            "namespace": "default",
            "workflow_id": WORKFLOW,
            "workflow_type": TYPE,
            "run_id": RUN,
            "governed": True,
        },
        "worker": {"id": WORKER},
        "now": {"__extn": {"fn": "datetime", "arg": moment}},
    }


def write(folder: Path, activities: int) -> None:
    folder.mkdir(parents=True)
    asyncio.run(make(folder, activities))
    (folder / "about.json").write_text(json.dumps({"activities": activities}))
