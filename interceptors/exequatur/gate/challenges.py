"""The workflow side of a challenge: wait for the people, or take the renewed grant, and ask again.

Runs inside the workflow sandbox; everything that replay repeats comes from recorded bytes: the failure, the signals,
the workflow's time. The SDK's handle of the activity is not resolved meanwhile, so that workflow code goes on waiting.
Rules, numbered as the code marks them (O1 to O14 are those of :mod:`exequatur.statements.approvals`, Z those of
:mod:`exequatur.statements.renewal`):

O21  A challenge is answered only where it verifies, is of the very request that failed, and has not ended.
O22  An approval counts only where it verifies by the workflow's time, and each person once. Whatever else the signal
     brings is dropped, and does not fail the workflow's task.
O23  Who rejects ends the waiting; so does the end of the challenge. Both are ``AuthorizationDenied``.
O24  No more than :data:`MAX_OPEN` challenges of a run are open, and an activity is challenged and renewed no more than
     :data:`MAX_ROUNDS` times each: floods are bounded.
O25  What does not fit into an activity's header is denied.
O26  An activity that is cancelled while it waits ends as cancelled, and is not scheduled again.
Z7   A renewed grant is taken only where it verifies against what the run stands on.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Literal

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError

from exequatur.errors import StatementError, UnknownKeyError
from exequatur.failures import AuthorizationDenied
from exequatur.gate.wire import ACTIVITY_HEADER
from exequatur.statements.approvals import (
    APPROVAL_SIGNAL,
    CHALLENGES_MEMO,
    enough,
    satisfied,
    verify_approval,
    verify_challenge,
)
from exequatur.statements.jws import Token, parse
from exequatur.statements.models import Approval, Challenge, RequestCore
from exequatur.statements.packing import MAX_TOKENS

if TYPE_CHECKING:
    from exequatur.gate.receiver import Asked
    from exequatur.gate.run import GovernedRun

logger = logging.getLogger("exequatur")

MAX_OPEN = 32
MAX_ROUNDS = 3
MAX_EARLY = 32
"""Approvals that came before their challenge was opened, or for none; the last ones are kept for a while."""
_MAX_PEOPLE = 256
"""More approvals of one challenge than this are not remembered."""
_MAX_TEXT = 48_000
"""Characters of tokens. Packed they take three quarters, which leaves room for the request and its credential."""
_OWN_TOKENS = 2
"""The request and its credential."""

Ending = Literal["agreed", "rejected", "ended", "cancelled"]


class Open:
    """A challenge that waits for people."""

    def __init__(self, challenge: Token[Challenge], credential: str, ended: asyncio.Future[Ending]) -> None:
        self.challenge = challenge
        self.credential = credential
        self.ended = ended
        self.approvals: dict[str, Token[Approval]] = {}
        self.rejection: Approval | None = None

    def end(self, how: Ending) -> None:
        if not self.ended.done():
            self.ended.set_result(how)


class Challenges:
    """The open challenges of one run."""

    def __init__(self, run: GovernedRun) -> None:
        self._run = run
        self._open: dict[str, Open] = {}
        self._early: deque[str] = deque(maxlen=MAX_EARLY)
        self._listening = False
        self._listed = False
        """Whether the memo names challenges, or is about to."""
        self._listing = False

    @property
    def full(self) -> bool:
        return len(self._open) >= MAX_OPEN

    async def wait(self, opened: Open, instance: Any) -> Ending:
        """Wait until people have decided, or the challenge ends.

        Args:
            opened: What :meth:`open` gave.
            instance: The SDK's workflow instance.
        """
        claims = opened.challenge.claims
        if not self._listening:
            self._listening = True
            instance.workflow_set_signal_handler(APPROVAL_SIGNAL, self.arrived)
        for text in [each for each in self._early if challenge_of(each) == opened.challenge.digest]:
            self._early.remove(text)
            self._count(opened, text)
        left = claims.exp - workflow.time()
        timer: asyncio.Task[None] | None = None
        if left <= 0:
            opened.end("ended")
        elif not opened.ended.done():
            self._list(instance)
            timer = instance.create_task(self._until(opened, left))
        how = await opened.ended
        if timer is not None and not timer.done():
            timer.cancel()
        del self._open[opened.challenge.digest]
        if self._listed:
            self._list(instance)
        return how

    def open(self, challenge: Token[Challenge], credential: str, instance: Any) -> Open:
        """Make room for a challenge, before anything waits."""
        opened = Open(challenge, credential, instance.create_future())
        self._open[challenge.digest] = opened
        return opened

    async def _until(self, opened: Open, seconds: float) -> None:
        await workflow.sleep(seconds, summary="exequatur: until a challenge ends")
        opened.end("ended")

    def _list(self, instance: Any) -> None:
        """Say in the memo what is open: once for all that changes in a moment."""
        if not self._listing:
            self._listing = self._listed = True
            instance.create_task(instance._run_top_level_workflow_function(self._write()))

    async def _write(self) -> None:
        self._listing = False
        entries = [
            {"challenge": each.challenge.text, "credential": each.credential}
            for each in self._open.values()
            if not each.ended.done()
        ]
        self._listed = bool(entries)
        workflow.upsert_memo({CHALLENGES_MEMO: entries or None})

    def arrived(self, *given: Any) -> None:
        """O22: take what a signal brings."""
        text = given[0] if given and isinstance(given[0], str) else ""
        asked = challenge_of(text)
        if asked is None:
            _drop(self._run, "it holds no approval")
        elif (opened := self._open.get(asked)) is None:
            self._early.append(text)
        else:
            self._count(opened, text)

    def _count(self, opened: Open, text: str) -> None:
        chain, now = self._run.chain, workflow.time()
        if chain is None or opened.ended.done():
            return
        try:
            approval = verify_approval(  # [O22]
                text, opened.challenge, self._run.gate.trust, aud=chain.grant.claims.aud, now=now
            )
        except UnknownKeyError:  # [X4]
            raise
        except StatementError as err:
            _drop(self._run, str(err))
            return
        claims = approval.claims
        if claims.verdict == "reject":  # [O23]
            opened.rejection = claims
            opened.end("rejected")
        elif claims.sub in opened.approvals or len(opened.approvals) < _MAX_PEOPLE:
            opened.approvals[claims.sub] = approval
            groups, _ = satisfied(opened.challenge.claims, [each.claims for each in opened.approvals.values()], now=now)
            if set(groups) == {need.group for need in opened.challenge.claims.needs}:
                opened.end("agreed")


class Answering:
    """Answers the challenges of one activity.

    Args:
        run: Whose activity it is.
        core: Of its request.
        handle: The SDK's handle.
        asked: What the activity was asked for with.
        fail: Lets the handle have a failure.
    """

    def __init__(self, run: GovernedRun, core: RequestCore, handle: Any, asked: Asked, fail: Any) -> None:
        self._run = run
        self.core = core
        """Of the request that the activity was last asked for with."""
        self._handle = handle
        self._asked = asked
        self._fail = fail
        self._challenged = 0
        self._renewed = 0
        self._idle = False
        """Nothing is scheduled: it waits, or is about to be asked for again."""
        self._guarded = False
        self._opened: Open | None = None
        self._answers: str | None = None
        self._carried: list[str] = []
        """Credential, challenge and approvals that the next request carries."""

    def answer(self, error: BaseException, cause: ApplicationError, details: dict[str, Any]) -> None:
        """Answer a challenge, or let the workflow have a denial.

        Args:
            error: What the handle would fail with.
            cause: The challenge; a local activity's failure is the challenge itself.
            details: Of the challenge.

        Raises:
            UnknownKeyError: The trust store does not know a key: not a verdict.
        """
        challenge, credential, renewal = (details.get(name) for name in ("challenge", "credential", "renewal"))
        self._error, self._cause, self._details = error, cause, details
        self._idle = True
        self._guard()
        try:
            if self._handle._cancel_command_seq == self._handle._seq:  # [O26]
                raise StatementError("O26", "The activity was cancelled meanwhile")
            if isinstance(renewal, str):
                self._renew(renewal)
            elif isinstance(challenge, str) and isinstance(credential, str):
                self._wait(challenge, credential)
            else:
                raise StatementError("O21", "Nothing says what is asked for")
        except UnknownKeyError:  # [X4]
            raise
        except StatementError as err:
            self._deny(str(err))

    def _renew(self, text: str) -> None:
        run = self._run
        self._renewed += 1
        if self._renewed > MAX_ROUNDS:  # [O24]
            raise StatementError("O24", f"The grant was renewed {MAX_ROUNDS} times for this activity, and ended again")
        if self.core.grant == run.leaf:  # otherwise another activity has renewed it meanwhile
            run.renew(text)  # [Z7]
        self._answers = self._answers or self.core.hash()
        self._check_room(self._carried)
        self._soon(self._again())

    def _wait(self, text: str, credential: str) -> None:
        run, chain = self._run, self._run.chain
        if chain is None:
            raise StatementError("O21", "The run's own grant does not verify")
        challenge = verify_challenge(text, credential, run.gate.trust, site=chain.site)
        self._check(challenge.claims)
        self._challenged += 1
        if self._challenged > MAX_ROUNDS:  # [O24]
            raise StatementError("O24", f"The activity was challenged {MAX_ROUNDS} times, and is again")
        if run.challenges.full:  # [O24]
            raise StatementError("O24", f"{MAX_OPEN} challenges of this run are open already")
        self._opened = run.challenges.open(challenge, credential, self._handle._instance)
        self._soon(self._waited(self._opened))

    def _check(self, claims: Challenge) -> None:
        """O21: is the challenge about what was asked for?

        Arguments and task queue are for the gate to compare (O13): a workflow's code may have changed them by the time
        that a replay comes here, and Temporal lets it.
        """
        run, core = self._run, self.core
        expected = {
            "request": core.hash(),
            "grant": core.grant,
            "workflow_id": core.workflow_id,
            "original_run_id": core.original_run_id,
            "activity_type": core.activity_type,
            "namespace": run.chain.namespace if run.chain else None,
            "sub": run.chain.grant.claims.sub if run.chain else None,
            "workflow_type": run.workflow_type,
        }
        for name, value in expected.items():
            if getattr(claims, name) != value:  # [O21]
                raise StatementError("O21", f"The challenge is for another {name.replace('_', ' ')}")

    def _guard(self) -> None:
        """O26: no cancel command while there is nothing to cancel."""
        if self._guarded:
            return
        self._guarded = True
        handle = self._handle
        request_cancel = handle._request_cancel

        def cancelled() -> None:
            if not self._idle or handle._instance._deleting:
                request_cancel()
                return
            self._idle = False  # [O26]
            if self._opened is not None:
                self._opened.end("cancelled")
            self._fail(_cancelled(handle))

        handle._request_cancel = cancelled

    async def _waited(self, opened: Open) -> None:
        how = await self._run.challenges.wait(opened, self._handle._instance)
        claims, self._opened = opened.challenge.claims, None
        if how == "cancelled":
            return
        if how == "ended":  # [O23]
            self._deny("Not enough people agreed in time")
        elif how == "rejected":  # [O23]
            rejection = opened.rejection
            who, why = (rejection.sub, rejection.reason) if rejection else ("Somebody", None)
            self._deny(f"{who} rejected it: {why}" if why else f"{who} rejected it")
        else:
            approvals = enough(claims, opened.approvals.values(), now=workflow.time())
            self._answers = claims.request
            self._carried = [opened.credential, opened.challenge.text, *(each.text for each in approvals)]
            try:
                self._check_room(self._carried)
            except StatementError as err:
                self._deny(str(err))
            else:
                await self._again()

    def _check_room(self, carried: Sequence[str]) -> None:
        texts = [*self._run.tokens, *carried]
        if len(texts) + _OWN_TOKENS > MAX_TOKENS or sum(map(len, texts)) > _MAX_TEXT:  # [O25]
            raise StatementError("O25", "What the activity would have to carry does not fit into its header")

    async def _again(self) -> None:
        """Ask again, on the handle that workflow code holds."""
        run, handle, instance = self._run, self._handle, self._handle._instance
        if not self._idle or handle.done():  # [O26]
            return
        core = run.next_core(self.core.activity_type)
        if not workflow.unsafe.is_replaying() or (self._asked.local and run.can_sign):
            header = self._asked.sign(core, answers=self._answers, challenge=self._carried)
            headers = {**handle._input.headers, ACTIVITY_HEADER: header}
            handle._input = dataclasses.replace(handle._input, headers=headers)
        handle._seq = instance._next_seq("activity")
        handle._apply_schedule_command()
        instance._pending_activities[handle._seq] = handle
        run.requested(core)
        self.core, self._idle = core, False

    def _soon(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """On the workflow's event loop, where an error fails the workflow's task."""
        instance = self._handle._instance
        instance.create_task(instance._run_top_level_workflow_function(coroutine))

    def _deny(self, why: str) -> None:
        if not self._idle:  # it was cancelled
            return
        self._idle = False
        kept = {name: value for name, value in self._details.items() if name not in ("challenge", "renewal")}
        denied = AuthorizationDenied(f"{self._cause.message}. {why}", kept)
        if not isinstance(self._error, ActivityError):
            self._fail(denied)
            return
        error = ActivityError(
            self._error.message,
            scheduled_event_id=self._error.scheduled_event_id,
            started_event_id=self._error.started_event_id,
            identity=self._error.identity,
            activity_type=self._error.activity_type,
            activity_id=self._error.activity_id,
            retry_state=self._error.retry_state,
        )
        error.__cause__ = denied
        self._fail(error)


def challenge_of(text: str) -> str | None:
    """Digest of the challenge that an approval says it is for, or ``None`` where it is none."""
    if len(text) > Approval.max_bytes:
        return None
    try:
        return parse(text, Approval).claims.challenge
    except StatementError:
        return None


def _drop(run: GovernedRun, why: str) -> None:
    if not workflow.unsafe.is_replaying():
        logger.warning("An approval was dropped: %s", why, extra={"workflow_id": run.info.workflow_id})


def _cancelled(handle: Any) -> ActivityError:
    """What the SDK raises for an activity that was cancelled."""
    error = ActivityError(
        "Activity cancelled",
        scheduled_event_id=0,
        started_event_id=0,
        identity="",
        activity_type=handle._input.activity,
        activity_id=handle._input.activity_id or str(handle._seq),
        retry_state=None,
    )
    error.__cause__ = CancelledError("Cancelled while it waited for approvals")
    return error
