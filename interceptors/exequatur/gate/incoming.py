"""What a governed run does with messages: signals, queries and updates.

Runs inside the workflow sandbox, before the user's handler. The verdict on a signal or update depends on recorded bytes
and on the recorded time, so that a replay repeats it. Rules, numbered as the code marks them (M11 to M33 are those of
:mod:`exequatur.statements.messages` and :mod:`exequatur.statements.used`):

M41  A message whose ``kind:name`` the grant lists in ``open_messages`` needs no permit.
M42  A run whose start header cannot be read or verified, or whose seal cannot, takes no other message.
M43  A message comes with a header that can be read (H1 to H3), and its permit, or the message of the run that sent it,
     verifies for exactly this one (M11 to M22).
M44  A signal or update is taken once (M31 to M33). A query changes nothing, and its permit is good until it ends.
M45  What is refused does not reach its handler: a signal is dropped, an update is refused in the validator and, since
     a workflow may have none, in the handler, a query in the handler. Where the grant says ``observe``, it is only
     reported.
M46  Two verdicts cannot be repeated from bytes: that a key is not known (T1), and that a message is for another run
     (M23), because a reset changes the run's id. They are recorded in the history with the SDK's patch marker, and a
     replay goes by that. In a replay, an unknown key that nobody refused fails the workflow task instead. A message
     does not wait until a key may have become known: anybody could hold up a run with keys that he makes up.
M47  A signal came when it first reached the run, also if its handler is registered much later.
M48  The signal that brings an approval proves itself, and is for the gate's own handler only.
M49  What was signed more than a minute before the run began was meant for the one before it, which may have used it.
M50  Of the queries that a run refuses, the first ones are recorded: nothing bounds how many there are.

Runs with a grant of version 1 take every message, as they did before.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.worker import HandleQueryInput, HandleSignalInput, HandleUpdateInput

from exequatur.errors import JournalError, StatementError, UnknownKeyError
from exequatur.failures import GrantRejected
from exequatur.gate.run import GovernedRun
from exequatur.gate.wire import payloads_digest, read_message_header
from exequatur.lineage.chain import handled_message
from exequatur.statements.approvals import APPROVAL_SIGNAL
from exequatur.statements.encoding import compact_json, digest
from exequatur.statements.messages import Admitted, Arrived, meant_for_another_run, verify_message
from exequatur.statements.models import MessageKind
from exequatur.statements.used import BEFORE
from exequatur.statements.verification import matches

logger = logging.getLogger("exequatur")

RECORD = "message"
"""Kind of the journal's records of the messages that runs were sent."""
MARKER = "exequatur"
"""What the patch ids of recorded refusals begin with (M46). They are short, for a search attribute lists them all."""
_UNREPEATABLE = ("T1", "M23")
MARKED = 16
"""Characters of a digest, 96 bits of it."""
_QUERIES_RECORDED = 256


@dataclass(frozen=True)
class Verdict:
    """On one message."""

    kind: MessageKind
    name: str
    args: str
    token: str | None = None
    """Digest of the last token that it came with."""
    admitted: Admitted | None = None
    problem: StatementError | None = None
    """Why it is refused."""


@dataclass(frozen=True)
class _Noted:
    """What only the SDK's own code sees of a message."""

    args: object
    """The very list that the interceptors get; kept so that its id stays its own."""
    digest: str
    came: float


class Incoming:
    """The messages of one run."""

    def __init__(self, run: GovernedRun, info: workflow.Info) -> None:
        self._run = run
        self._info = info
        self._instance: Any = workflow._Runtime.current()
        self._noted: dict[int, _Noted] = {}
        self._arrivals: dict[int, float] = {}
        self._came: float | None = None
        self._marked: set[str] = set()
        self._queries_refused = 0
        self._aud = run.chain.grant.claims.aud if run.chain else ""
        self._fault = self._find_fault()
        self._attach()

    @classmethod
    def of(cls, run: GovernedRun | None, info: workflow.Info) -> Incoming | None:
        """The run's messages, or ``None`` where they are left alone.

        Raises:
            UnknownKeyError: W3 of :mod:`exequatur.gate.run`.
        """
        return None if run is None or run.ver < 2 else cls(run, info)

    def _find_fault(self) -> str | None:
        """M42, and what the run before used up."""
        run, info, before = self._run, self._info, self._run.before
        if run.chain is None:
            return run.fault or "the grant does not verify"
        if not run.sealed:
            return None
        if before is None:
            return "the seal that it came with does not verify"
        first = info.attempt == 1 and run.chain.authorization.reuse not in ("cron", "schedule")
        if first and before.run_id != info.continued_run_id:
            return "the seal that it came with is of another run"
        try:
            run.heard.used.carry(before.used, before.used_until)
        except StatementError as err:
            return str(err)
        return None

    def _attach(self) -> None:
        """Look at what the SDK does before it calls an interceptor."""
        instance = self._instance
        decode, arrive, process = (
            instance._process_handler_args,
            instance._apply_signal_workflow,
            instance._process_signal_job,
        )

        def noting(name: str, payloads: Any, *rest: Any) -> Any:
            args = decode(name, payloads, *rest)
            came = self._now() if self._came is None else self._came
            self._noted[id(args)] = _Noted(args, payloads_digest(payloads), came)
            return args

        def arriving(job: Any) -> None:
            self._arrivals[id(job)] = self._now()
            arrive(job)

        def processing(definition: Any, job: Any) -> None:
            self._came = self._arrivals.pop(id(job), None)  # [M47]
            try:
                process(definition, job)
            finally:
                self._came = None

        instance._process_handler_args = noting
        instance._apply_signal_workflow = arriving
        instance._process_signal_job = processing

    def _now(self) -> float:
        now: int = self._instance.workflow_time_ns()
        return now / 1e9

    def takes_signal(self, input: HandleSignalInput) -> bool:
        """Whether the signal is to reach its handler."""
        if input.signal == APPROVAL_SIGNAL:  # [M48]
            self._noted.pop(id(input.args), None)
            return workflow.get_signal_handler(APPROVAL_SIGNAL) == self._run.challenges.arrived
        verdict = self._judge("signal", input.signal, input.headers, input.args, once=True)
        self._tell(verdict, self._fold(verdict))
        return verdict.problem is None or not self._run.enforced  # [M45]

    def check_query(self, input: HandleQueryInput) -> None:
        """Refuse a query that may not be answered.

        Raises:
            GrantRejected: M45.
        """
        verdict = self._judge("query", input.query, input.headers, input.args, once=False)
        self._queries_refused += verdict.problem is not None
        if verdict.problem is None or self._queries_refused <= _QUERIES_RECORDED:  # [M50]
            self._tell(verdict)
        self._refuse(verdict)

    def check_validation(self, input: HandleUpdateInput) -> None:
        """Refuse an update before it is accepted. Nothing of that is replayed, so nothing is remembered.

        Raises:
            GrantRejected: M45.
        """
        verdict = self._judge("update", input.update, input.headers, input.args, once=False)
        if verdict.problem is not None:
            self._tell(verdict)
            self._refuse(verdict)

    def check_update(self, input: HandleUpdateInput) -> None:
        """Refuse an update before it is handled.

        Raises:
            GrantRejected: M45.
        """
        verdict = self._judge("update", input.update, input.headers, input.args, once=True)
        self._tell(verdict, self._fold(verdict))
        self._refuse(verdict)

    def _judge(
        self, kind: MessageKind, name: str, headers: Mapping[str, Payload], args: object, *, once: bool
    ) -> Verdict:
        """M41 to M44.

        Args:
            kind: What it is.
            name: Of the message.
            headers: What it came with.
            args: What the SDK decoded of it.
            once: Whether its permit is used up, and the verdict repeated by a replay.
        """
        run, noted = self._run, self._noted.pop(id(args), None)
        if noted is None or noted.args is not args:
            return Verdict(kind, name, "", problem=StatementError("M16", "Its arguments cannot be told"))
        verdict = Verdict(kind, name, noted.digest)
        if run.chain is not None and matches(f"{kind}:{name}", run.chain.grant.claims.open_messages):  # [M41]
            return verdict
        token: str | None = None
        try:
            if self._fault is not None:  # [M42]
                raise StatementError("M42", f"The run takes no messages: {self._fault}")
            tokens = read_message_header(headers)
            if not tokens:
                raise StatementError("M11", "It came without a permit; send it with a client that has the plugin")
            token = digest(tokens[-1])
            # No replay repeats a query, and a run that waits for long has an old time.
            now = run.gate.clock() if kind == "query" else noted.came
            arrived = Arrived(kind, self._info.workflow_id, name, noted.digest, now)
            admitted = self._verify(tokens, arrived, once=once)  # [M43]
            if admitted.token.claims.iat < self._run.info.workflow_start_time.timestamp() - BEFORE:  # [M49]
                raise StatementError("M49", "It was sent before the run began")
            if once:
                run.heard.used.take(token, admitted.token.claims.iat)  # [M44]
        except UnknownKeyError:  # [M46]
            raise
        except StatementError as err:
            return Verdict(kind, name, noted.digest, token, problem=err)
        return Verdict(kind, name, noted.digest, token, admitted)

    def _verify(self, tokens: list[str], arrived: Arrived, *, once: bool) -> Admitted:
        """M43 and M46.

        Raises:
            UnknownKeyError: M46.
            StatementError: M43, M46.
        """
        admitted: Admitted | None = None
        problem: StatementError | None
        try:
            admitted = verify_message(tokens, self._run.gate.trust, aud=self._aud, arrived=arrived)
            problem = meant_for_another_run(admitted, self._info.run_id, self._info.original_execution_run_id)
        except UnknownKeyError as err:
            problem = err
        if once:
            problem = self._settled(digest("~".join(tokens)), problem)
        if isinstance(problem, UnknownKeyError):
            if once:
                raise problem
            problem = StatementError(problem.rule, problem.reason)
        if problem is not None or admitted is None:
            raise problem or StatementError("M11", "It does not verify")
        return admitted

    def _settled(self, tokens: str, problem: StatementError | None) -> StatementError | None:
        """What history says of a verdict that cannot be repeated, or what it is to say from now on (M46)."""
        instance = self._instance
        for rule in _UNREPEATABLE:
            marker = f"{MARKER}-{rule}-{tokens[:MARKED]}"
            known = marker in self._marked or marker in instance._patches_notified
            found = problem is not None and problem.rule == rule and not workflow.unsafe.is_replaying()
            if known or found:
                self._mark(marker)
                reason = problem.reason if problem is not None and problem.rule == rule else "It was refused before"
                return StatementError(rule, reason)
        # A replay that found nothing recorded: the message was taken.
        return problem if isinstance(problem, UnknownKeyError) else None

    def _mark(self, marker: str) -> None:
        if marker not in self._marked:
            self._marked.add(marker)
            command = self._instance._add_command()
            command.set_patch_marker.patch_id = marker
            command.set_patch_marker.deprecated = False

    def _refuse(self, verdict: Verdict) -> None:
        if verdict.problem is not None and self._run.enforced:  # [M45]
            raise GrantRejected(f"The {verdict.kind} {verdict.name[:100]} is refused: {verdict.problem}")

    def _fold(self, verdict: Verdict) -> str:
        refused = verdict.problem.rule if verdict.problem else None
        item = handled_message(verdict.kind, verdict.name, verdict.args, verdict.token, refused)
        self._run.heard.handled(item)
        return item

    def _tell(self, verdict: Verdict, item: str | None = None) -> None:
        """Count, log and record it; not when it is replayed.

        Args:
            verdict: What was decided.
            item: What was taken into the head of the messages, if that was done.
        """
        if workflow.unsafe.is_replaying_history_events():
            return
        run, info, problem, admitted = self._run, self._info, verdict.problem, verdict.admitted
        if problem is not None:
            run.gate.metrics.message_refused(verdict.kind, info.workflow_type, problem.rule, enforced=run.enforced)
            logger.warning(
                "The %s %s to workflow %s is %s: %s",
                verdict.kind,
                verdict.name[:100],
                info.workflow_id,
                "refused" if run.enforced else "not refused, because the run observes",
                problem,
                extra={"workflow_id": info.workflow_id, "run_id": info.run_id, "enforced": run.enforced},
            )
        if run.gate.journal is None:
            return
        body = {
            "workflow_id": info.workflow_id,
            "workflow_type": info.workflow_type,
            "run_id": info.run_id,
            "original_run_id": info.original_execution_run_id,
            "kind": verdict.kind,
            "name": verdict.name[:1000],
            "args": verdict.args or None,
            "token": verdict.token,
            "statement": admitted.token.claims.jti if admitted else None,
            "principal": admitted.principal if admitted else None,
            "sender": admitted.sender if admitted else None,
            "accepted": problem is None,
            "enforced": run.enforced,
            "rule": problem.rule if problem else None,
            "reason": problem.reason if problem else None,
            "message": item,
            "messages": run.heard.head if item else None,
        }
        try:
            run.gate.journal.enqueue(RECORD, compact_json(body))
        except (JournalError, ValueError):
            logger.exception("A %s to workflow %s is not in the evidence", verdict.kind, info.workflow_id)
