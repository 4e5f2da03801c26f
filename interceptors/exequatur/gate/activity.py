"""The activity side of the gate: authorize, record, look once more, run, prove.

Rules, numbered as the code marks them:

F1  Nothing runs while it cannot be decided: after a bounded wait the attempt fails retryably (rules U of
    :mod:`exequatur.gate.gate`).
F2  The attempt is judged (rules A of :mod:`exequatur.gate.attempt`); what is not allowed does not run.
F3  The decision is in the evidence journal, on disk, before the body's first line runs.
F4  A request is used once for each run and attempt. A local activity's is used once by its token, because Temporal may
    run that again from its first attempt.
    An attempt of the same number, of the same activity, that was scheduled later comes after a reset; it is judged as
    that.
F5  A grant that is good for one execution chain serves the first that shows it, and no other; so do the grants and
    delegations that it stands on. A permit serves the first run of its activity (Y8).
F6  If anything changed while the decision was being written, it is made again.
F7  Rules B of :mod:`exequatur.gate.running` hold while the body runs.
F8  Every outcome gets a signed receipt; on a completed result it travels with it.
F9  Where more than the grant is needed and can be had, a refusal says what (rules O and Z of
    :mod:`exequatur.gate.challenge`), but only to the execution that the grant serves.
F10  One challenge is answered by one request of one run, so that people agree to one execution and not to all like it,
     nor to those that a reset makes of it.
F11  A result that nothing could prove any more (U7) is not reported: the attempt may be tried again.
F12  Where policies can read what was done before, the attempt is counted before they are asked; where it cannot be,
     nothing runs (rules C of :mod:`exequatur.gate.counting`).

In ``observe`` all of it is done and recorded with ``enforced: false``, and nothing is blocked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import temporalio.activity
import temporalio.exceptions
from temporalio.activity import Info
from temporalio.common import RawValue
from temporalio.worker import (
    ActivityInboundInterceptor,
    ActivityOutboundInterceptor,
    ExecuteActivityInput,
)

from exequatur.errors import ExequaturError, JournalError, RepeatedRequestError, ReplayedRequestError
from exequatur.failures import (
    AuthorizationChallenge,
    AuthorizationFailure,
    AuthorizationRevoked,
    AuthorizationUnavailable,
    GrantRejected,
)
from exequatur.gate.attempt import Attempt, Judgement
from exequatur.gate.challenge import Offer, offer
from exequatur.gate.codec import decoded_here
from exequatur.gate.counted import came_of, count, ran, undecided
from exequatur.gate.gate import Gate
from exequatur.gate.heartbeat import sign_details
from exequatur.gate.pins import pinned, serves, used_once
from exequatur.gate.running import CHANGED, Running
from exequatur.gate.wire import RECEIPT, payloads_digest, without_ours
from exequatur.lineage.record import Entry
from exequatur.policy.action import ActionMark, mark_of
from exequatur.policy.arguments import ActivitySignature
from exequatur.statements.encoding import compact_json, digest
from exequatur.statements.jws import Token
from exequatur.statements.models import LogPlace, Outcome, Receipt, RevocationState, first_names, short_digest
from exequatur.statements.packing import pack
from exequatur.statements.requests import core_of

logger = logging.getLogger("exequatur")

_LOOK_INTERVAL = 0.05
"""Seconds between two looks whether authorization has become possible."""
_CLOSED = (AuthorizationUnavailable, AuthorizationRevoked)
"""How a judgement fails where it is not about the attempt: another worker may run it."""
_MAX_TRIES = 8
"""How often a decision is made again because something changed meanwhile (F6)."""


class ActivityInbound(ActivityInboundInterceptor):
    """Stands outermost around every activity execution of a worker."""

    def __init__(self, next: ActivityInboundInterceptor, gate: Gate) -> None:
        super().__init__(next)
        self._gate = gate
        self._outbound: ActivityOutbound | None = None

    def init(self, outbound: ActivityOutboundInterceptor) -> None:
        self._outbound = ActivityOutbound(outbound, self._gate)
        super().init(self._outbound)

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        arrived = time.perf_counter()
        gate, info = self._gate, temporalio.activity.info()
        attempt = self._attempt(input, info)
        try:
            judgement, entry = await self._admit(attempt)
        except _Refused as refused:
            gate.metrics.decided(
                type(refused.failure).__name__,
                info.activity_type,
                enforced=True,
                seconds=time.perf_counter() - arrived,
            )
            raise refused.failure from None
        except BaseException:  # it was cancelled, or the evidence could not be written
            undecided(attempt)
            raise
        running = Running(gate, attempt, judgement)
        if self._outbound:
            self._outbound.running = running
        gate.metrics.decided(
            "allowed" if judgement.allowed else "observed",
            info.activity_type,
            enforced=attempt.enforced,
            seconds=time.perf_counter() - arrived,
        )
        try:
            result = await running.run(self.next, input)
        except (AuthorizationRevoked, AuthorizationUnavailable):
            if running.revoked is None:  # the body's own
                self._close(running, entry, "failed")
                raise
            if running.revoked.failure is AuthorizationUnavailable:  # [U5]
                self._close(running, entry, "unavailable")
                logger.warning("AuthorizationUnavailable: %s", running.revoked.reason, extra=_about(info))
                raise self._unavailable(running.revoked.reason or "the authorization ended") from None
            raise await self._revoked(running, entry) from None
        except GrantRejected as err:
            if entry is None or err.message != CHANGED:
                self._close(running, entry, "failed")
                raise
            undecided(attempt)
            raise await self._denied(attempt, _rejected(running.judgement, CHANGED), entry) from None
        except BaseException as err:
            self._close(running, entry, _outcome_of(err))
            raise
        finally:
            ran(attempt, gate.clock() - running.started)
        if attempt.enforced and (ended := gate.workload.cut_off(gate.clock())):  # [F11]
            self._close(running, entry, "unavailable")
            raise self._unavailable(ended)
        return self._complete(running, entry, result)

    def _attempt(self, input: ExecuteActivityInput, info: Info) -> Attempt:
        signature, mark, dynamic = _described(input.fn)
        decoded = decoded_here()
        values = input.args[0] if dynamic and input.args else input.args
        has_input, has_details = bool(values), bool(info.heartbeat_details)
        return Attempt(
            gate=self._gate,
            info=info,
            headers=input.headers,
            input=decoded[0] if has_input and decoded else [],
            heartbeat=decoded[int(has_input)] if has_details and len(decoded) > int(has_input) else [],
            signature=signature,
            args=input.args,
            mark=mark,
        )

    async def _admit(self, attempt: Attempt) -> tuple[Judgement, Entry | None]:
        """F1 to F6.

        Raises:
            _Refused: The attempt may not run.
        """
        gate, loop = self._gate, asyncio.get_running_loop()
        deadline = loop.time() + gate.settings.unavailable_wait.total_seconds()
        recorded = False
        tries = 0
        while True:
            why = gate.unavailable()
            if why is None:
                try:
                    await count(attempt)  # [F12]
                except JournalError as err:  # [F12]
                    why = str(err)
            judgement = attempt.judge() if why is None else None  # F2
            if judgement is not None and judgement.failure in _CLOSED:  # the release ended just now, or this worker did
                why, judgement = judgement.reason or "the authorization ended", None
            if judgement is not None:
                try:
                    judgement, entry = await self._record(attempt, judgement, again=recorded)
                except RepeatedRequestError:  # [F4]
                    attempt.reset = True
                    continue
                except JournalError as err:
                    why = str(err)
                else:
                    # A rejection used nothing up, so rules F4 and F5 are still to be asked.
                    recorded = recorded or judgement.allowed
                    tries += 1
                    if judgement.epoch != gate.epoch:  # [F6]
                        if tries < _MAX_TRIES:
                            continue
                        why = "the policies keep changing"
                    elif judgement.allowed or not attempt.enforced:
                        self._compare(attempt, judgement)
                        came_of(attempt, judgement)
                        return judgement, entry
                    else:
                        self._compare(attempt, judgement)
                        failure = await self._denied(attempt, judgement, entry)
                        came_of(attempt, judgement, failure)
                        raise _Refused(failure)
            if not attempt.enforced:
                logger.warning("Not enforced: %s", why, extra=_about(attempt.info))
                return attempt.judge(), None
            if loop.time() >= deadline:  # [F1]
                undecided(attempt)
                raise _Refused(self._unavailable(why or "the authorization ended"))
            await asyncio.sleep(_LOOK_INTERVAL)

    def _compare(self, attempt: Attempt, judgement: Judgement) -> None:
        """Let candidate policies be asked about a decision that stands; they change nothing about it."""
        if self._gate.shadow is not None:
            self._gate.shadow.beside(attempt, judgement)

    async def _record(self, attempt: Attempt, judgement: Judgement, *, again: bool) -> tuple[Judgement, Entry]:
        """F3 to F5: put the decision on disk; a replayed request or stolen grant turns it into a rejection.

        Raises:
            RepeatedRequestError: The activity was reset, and the judgement does not know it.
        """
        journal, authorized, info = self._gate.require_journal(), attempt.authorized, attempt.info
        request = attempt.request_id
        if judgement.allowed and request is not None and not again:
            if not await self._pinned(attempt):  # [F5]
                what = "permit" if attempt.permit else "grant"
                judgement = _rejected(judgement, f"The {what} was already used by another execution")
            elif not await self._answers_once(attempt):  # [F10]
                judgement = _rejected(
                    judgement,
                    "The approvals were already used for another request, or before the workflow was reset; reset it "
                    "to before it asked for them",
                )
            else:
                used = authorized.request.digest if authorized and info.is_local else request
                try:
                    await used_once(attempt, used)  # [F4]
                    entry = await journal.append_decision(
                        _decision(attempt, judgement),
                        request=used,
                        run=attempt.run_id,
                        attempt=info.attempt,
                        reset=attempt.reset,
                    )
                except RepeatedRequestError:
                    raise
                except ReplayedRequestError:  # [F4]
                    judgement = _rejected(judgement, "The request was already used for this run and attempt")
                else:
                    return judgement, entry
        return judgement, await journal.append("decision", _decision(attempt, judgement))  # [F3]

    async def _pinned(self, attempt: Attempt) -> bool:
        """Whether grant or permit is used by the execution that used it first."""
        if attempt.permit is not None:  # [Y8]
            return await pinned(self._gate, attempt.permit.digest, attempt.run_id)
        if attempt.authorized is None:
            return True
        return await serves(self._gate, attempt.authorized.chain, attempt.authorized.request.claims.first_run_id)

    async def _answers_once(self, attempt: Attempt) -> bool:
        """Whether the challenge that came along is answered by this request of this run and no other."""
        authorized = attempt.authorized
        if authorized is None or authorized.agreement is None:
            return True
        # A reset run makes the same request again, and asks people anew if it was reset to before it had asked them.
        challenge, answer = authorized.agreement.challenge.digest, f"{authorized.request.claims.jti} {attempt.run_id}"
        return await pinned(self._gate, f"challenge {challenge}", answer)

    async def _denied(self, attempt: Attempt, judgement: Judgement, entry: Entry) -> AuthorizationFailure:
        failure, reason = judgement.failure or GrantRejected, judgement.reason or ""
        try:
            offered = await self._offered(attempt, judgement)
        except AuthorizationUnavailable as err:
            return self._unavailable(err.message)
        outcome: Outcome = "denied" if judgement.decision == "deny" else "rejected"
        receipt = self._receipt(attempt, judgement, entry, outcome)
        journal = self._gate.require_journal()
        await journal.append("receipt", receipt.text.encode())
        details = self._details(attempt, judgement, receipt)
        if offered is not None:
            reason = f"{reason}. {offered.sentence}"
            details |= offered.details
            failure = AuthorizationChallenge if offered.details else failure
            if offered.record is not None:
                await journal.append("challenge", offered.record)
        logger.warning(
            "%s: %s",
            failure.__name__,
            reason,
            extra=_about(attempt.info) | {"policies": [ref.id for ref in judgement.policies]},
        )
        return failure(reason, details)

    async def _offered(self, attempt: Attempt, judgement: Judgement) -> Offer | None:
        """F9: what would help, to the execution that the grant is for.

        Raises:
            AuthorizationUnavailable: It cannot be decided now.
        """
        if not (judgement.needs or judgement.renewable) or not await self._pinned(attempt):  # [F9]
            return None
        return await offer(attempt, judgement)

    async def _revoked(self, running: Running, entry: Entry | None) -> AuthorizationRevoked:
        judgement = running.revoked or running.judgement
        receipt = self._receipt(running.attempt, judgement, entry, "revoked", running)
        try:
            await self._gate.require_journal().append("receipt", receipt.text.encode())
        except JournalError as err:
            logger.error("The record of a revocation is kept in memory: %s", err, extra=_about(running.attempt.info))
            self._enqueue(receipt)
        logger.warning("AuthorizationRevoked: %s", judgement.reason, extra=_about(running.attempt.info))
        return AuthorizationRevoked(
            judgement.reason or "The authorization ended", self._details(running.attempt, judgement, receipt)
        )

    def _unavailable(self, why: str) -> AuthorizationUnavailable:
        delay = self._gate.settings.unavailable_retry_delay
        return AuthorizationUnavailable(f"It could not be decided: {why}", next_retry_delay=delay)

    def _close(self, running: Running, entry: Entry | None, outcome: Outcome) -> None:
        """F8 for what ends without a result. Nothing may keep the original failure from being raised."""
        if self._gate.workload.cut_off(self._gate.clock()):
            logger.error("An attempt ended without a receipt: no credential", extra=_about(running.attempt.info))
            return
        try:
            judgement = running.revoked or running.judgement
            self._enqueue(self._receipt(running.attempt, judgement, entry, outcome, running))
        except (ExequaturError, ValueError):
            logger.exception("An attempt ended without a receipt", extra=_about(running.attempt.info))

    def _complete(self, running: Running, entry: Entry | None, result: Any) -> Any:
        """F8 for a result. Synchronous: an await here could lose a finished result to a late cancel."""
        attempt = running.attempt
        [payload] = temporalio.activity.payload_converter().to_payloads([result])
        if isinstance(result, RawValue):
            payload = without_ours(payload)  # a copy: the body may still hold the original
        try:
            receipt = self._receipt(
                attempt, running.judgement, entry, "completed", running, result=payloads_digest([payload])
            )
            credential = self._gate.workload.credential
        except (ExequaturError, ValueError):
            logger.exception("A result goes out without a receipt", extra=_about(attempt.info))
            return RawValue(payload)
        self._enqueue(receipt)
        if attempt.request_id is not None:
            knows = attempt.authorized.request.claims.knows if attempt.authorized else ()
            known = short_digest(credential.digest) in knows
            payload.metadata[RECEIPT] = pack([receipt.text], [] if known else [credential.text])
        return RawValue(payload)

    def _enqueue(self, receipt: Token[Receipt]) -> None:
        if self._gate.journal is not None:
            self._gate.journal.enqueue("receipt", receipt.text.encode())

    def _receipt(
        self,
        attempt: Attempt,
        judgement: Judgement,
        entry: Entry | None,
        outcome: Outcome,
        running: Running | None = None,
        result: str | None = None,
    ) -> Token[Receipt]:
        gate, info, authorized = self._gate, attempt.info, attempt.authorized
        request = authorized.request if authorized else None
        local = request is not None and info.is_local
        return gate.workload.sign(
            Receipt(
                iss=gate.workload.id,
                iat=round(gate.clock(), 3),
                request=attempt.request_id,
                request_digest=attempt.request_digest if attempt.request_id else None,
                activity_id=info.activity_id,
                activity_type=info.activity_type,
                workflow_id=None if request else attempt.workflow_id,
                run_id=attempt.run_id or None,
                attempt=info.attempt,
                decision=judgement.decision,
                enforced=attempt.enforced,
                policies=first_names(ref.id for ref in judgement.policies),
                reason=judgement.reason[:400] if judgement.reason else None,
                bundle=judgement.bundle,
                bundle_sequence=judgement.sequence,
                revocations=RevocationState(version=gate.revocations.version, age=round(gate.revocations.age(), 3)),
                facts=digest(judgement.facts),
                rechecks=running.rechecks if running else 0,
                started=round(running.started, 3) if running else None,
                outcome=outcome,
                result=result,
                log=LogPlace(id=gate.journal.log_id, index=entry.index, head=entry.head)
                if entry and gate.journal
                else None,
                core=core_of(request.claims) if request and local else None,
                args=request.claims.args if request and local else None,
            )
        )

    def _details(self, attempt: Attempt, judgement: Judgement, receipt: Token[Receipt]) -> dict[str, Any]:
        return {
            "principal": judgement.principal,
            "activity": attempt.info.activity_type,
            "policies": [{"id": ref.id, "reason": ref.reason} for ref in judgement.policies],
            "receipt": receipt.text,
            "credential": self._gate.workload.credential.text,
        }


class ActivityOutbound(ActivityOutboundInterceptor):
    """Re-checks on heartbeats and signs their details."""

    def __init__(self, next: ActivityOutboundInterceptor, gate: Gate) -> None:
        super().__init__(next)
        self._gate = gate
        self.running: Running | None = None
        # A heartbeat may come from a thread that has no activity context.
        self._converter = temporalio.activity.payload_converter()

    def heartbeat(self, *details: Any) -> None:
        running = self.running
        if running is not None:
            running.heartbeat()
            attempt = running.attempt
            if details and attempt.request_id is not None:
                details = tuple(
                    sign_details(
                        details,
                        self._gate,
                        self._converter,
                        request=attempt.request_id,
                        run_id=attempt.run_id,
                        attempt=attempt.info.attempt,
                    )
                )
        self.next.heartbeat(*details)


def _described(fn: Callable[..., Any]) -> tuple[ActivitySignature, ActionMark, bool]:
    """An activity's signature, what it says about its action, and whether it is dynamic.

    The one argument of a dynamic activity is the list of raw values.
    """
    # An object with __call__ need not have a hash.
    return _described_once(fn) if getattr(type(fn), "__hash__", None) else _described_once.__wrapped__(fn)


@lru_cache(maxsize=4096)
def _described_once(fn: Callable[..., Any]) -> tuple[ActivitySignature, ActionMark, bool]:
    definition = temporalio.activity._Definition.from_callable(fn)
    return ActivitySignature.of(fn), mark_of(fn), definition is not None and not definition.name


class _Refused(Exception):
    """Carries the failure out of the admission."""

    def __init__(self, failure: AuthorizationFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _rejected(judgement: Judgement, reason: str) -> Judgement:
    return replace(judgement, decision="none", failure=GrantRejected, reason=reason)


def _outcome_of(error: BaseException) -> Outcome:
    if isinstance(error, temporalio.activity._CompleteAsyncError):
        return "async"
    if isinstance(error, (asyncio.CancelledError, temporalio.exceptions.CancelledError)):
        return "cancelled"
    return "failed"


def _decision(attempt: Attempt, judgement: Judgement) -> bytes:
    """The journal's record of a decision: enough to make it again from the archived bundle and the history.

    Of the arguments it holds what policies read, because only that was given to Cedar.
    """
    info = attempt.info
    named = {} if judgement.resource is None else {"resource": judgement.resource}
    when = {} if info.is_local else attempt.scheduled
    return compact_json(
        {
            **named,
            **when,
            **_counted(attempt),
            **_restricted(attempt, judgement),
            "request": attempt.request_id,
            "request_digest": attempt.request_digest,
            "workflow_id": attempt.workflow_id,
            "run_id": attempt.run_id or None,
            "activity_id": info.activity_id,
            "activity_type": info.activity_type,
            "attempt": info.attempt,
            "principal": judgement.principal,
            "vouched": attempt.vouched,
            "args": attempt.input_digest,
            "arguments": judgement.arguments.decode(),
            "fault": judgement.fault,
            "facts": judgement.facts.decode(),
            "decision": judgement.decision,
            "enforced": attempt.enforced,
            "reason": judgement.reason,
            "policies": [ref.id for ref in judgement.policies],
            "bundle": judgement.bundle,
            "bundle_sequence": judgement.sequence,
        }
    )


def _restricted(attempt: Attempt, judgement: Judgement) -> dict[str, Any]:
    """What an auditor needs besides: the history holds neither the headers of local activities nor who was asked."""
    held = attempt.held
    restriction = {"activities": held.activities, "until": held.until, "forbid": held.forbid} if held else None
    named = {"restriction": restriction, "question": judgement.question}
    return {name: value for name, value in named.items() if value is not None}


def _counted(attempt: Attempt) -> dict[str, Any]:
    """Where the attempt stands in the ledger, if policies were told what stands before it."""
    counting = attempt.gate.counting
    place = attempt.reservation.place(counting.baseline) if attempt.reservation and counting else None
    return {} if place is None else {"counted": place}


def _about(info: Info) -> dict[str, Any]:
    """Fields for structured logs: names only, no arguments."""
    return {
        "activity_type": info.activity_type,
        "activity_id": info.activity_id,
        "attempt": info.attempt,
        "workflow_id": info.workflow_id,
        "run_id": info.workflow_run_id,
    }
