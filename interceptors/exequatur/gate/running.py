"""An attempt whose body is running: looks again at its authorization and ends it when that is gone.

Rules, numbered as the code marks them:

B1  The body is not entered when the authorization has gone since it was given, in whichever thread or process.
B2  The body is not entered with other arguments than those that were judged.
B3  In another epoch, when an allow has lasted as long as it may, or when it is not known any more what is revoked or
    what this worker is, the attempt is judged again.
B4  An attempt that is no longer allowed ends at once; its body is cancelled and a late result is discarded. Where that
    is because the release of the policies has ended, it is not revoked: it may be tried again.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import functools
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any

import temporalio.activity
import temporalio.exceptions
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from exequatur.failures import AuthorizationFailure, AuthorizationRevoked, AuthorizationUnavailable, GrantRejected
from exequatur.gate.attempt import ArgumentPrint, Attempt, Judgement, print_of
from exequatur.gate.gate import Gate

logger = logging.getLogger("exequatur")

CHANGED = "The arguments were changed after they were authorized"


class ProcessBody:
    """The body of an activity in another process, with the last look (B1, B2). Picklable."""

    def __init__(self, fn: Callable[..., Any], fingerprint: ArgumentPrint, expected: bytes, ended: Any) -> None:
        self._fn = fn
        self._fingerprint = fingerprint
        self._expected = expected
        self._ended = ended

    def __call__(self, *args: Any) -> Any:
        # A process pool takes more than it has processes for, and what it has taken cannot be cancelled.
        if self._ended is not None and self._ended.is_set():  # [B1]
            raise AuthorizationRevoked("The authorization ended before the activity began")
        if self._fingerprint(args) != self._expected:  # [B2]
            raise GrantRejected(CHANGED)
        return self._fn(*args)


class Running:
    """The body of one attempt and its authorization.

    Created and ended on the worker's event loop; :meth:`look_again_soon` may be called from any thread.
    """

    def __init__(self, gate: Gate, attempt: Attempt, judgement: Judgement) -> None:
        self.gate = gate
        self.attempt = attempt
        self.judgement = judgement
        self.rechecks = 0
        self.started = gate.clock()
        self.revoked: Judgement | None = None
        self._against: Judgement | None = None
        """The last look's judgement where it was not allowed; the event loop makes it ``revoked``."""
        self.loop = asyncio.get_running_loop()
        self._here = contextvars.copy_context()
        """The activity's context: whoever asks for another look, it is made where a clock finds this attempt."""
        self._something: asyncio.Future[None] = self.loop.create_future()
        """Done when the body is, or when the authorization has gone."""
        self._over = False
        self._looked_at = self.loop.time()
        self._fingerprint = ArgumentPrint(attempt.signature)
        self._expected = print_of(attempt.arguments)
        self._in_process = False
        self._ended_elsewhere: Any = None
        """Tells a body in another process that has not begun that the authorization has gone."""

    async def run(self, next: ActivityInboundInterceptor, input: ExecuteActivityInput) -> Any:
        """Run the rest of the interceptors and the body.

        Raises:
            AuthorizationRevoked: The authorization ended first. ``revoked`` then says why.
            AuthorizationUnavailable: The same, and it is not known whether it would be given again.
        """
        self._context = temporalio.activity._Context.current()
        input.fn = self._guarded(input)
        self.gate.enter(self)
        if self._in_process:
            # What changed before it was entered told nobody, and in another process the body cannot look itself.
            self.look_again()
        body = asyncio.ensure_future(next.execute_activity(input))
        body.add_done_callback(self._wake)
        try:
            while self.revoked is None and not body.done():
                try:
                    await self._something
                except asyncio.CancelledError as err:
                    # The SDK cancels this task; the body is to see it, and may still return a result.
                    self._something = self.loop.create_future()
                    body.cancel(*err.args)
            if self.revoked is not None:
                self._abandon(body)
                raise _ended(self.revoked)
            return body.result()
        finally:
            self._over = True
            self.gate.leave(self)

    def _wake(self, _: object = None) -> None:
        if not self._something.done():
            self._something.set_result(None)

    def _guarded(self, input: ExecuteActivityInput) -> Callable[..., Any]:
        """The body with the last look right before its first line."""
        fn = input.fn
        if inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None)):  # noqa: B004

            async def asynchronous(*args: Any) -> Any:
                self._last_look(args)
                return await fn(*args)

            return _named_like(fn, asynchronous)

        if isinstance(input.executor, concurrent.futures.ThreadPoolExecutor):

            def threaded(*args: Any) -> Any:
                self._last_look(args)
                return fn(*args)

            return _named_like(fn, threaded)

        self._in_process = True
        if not self.attempt.enforced:
            return fn
        if self.attempt.mark.resolver is not None and self.attempt.arguments.faults:  # [B2]
            raise GrantRejected(
                "What its resource was told from has no form in Cedar, and cannot be compared in another process"
            )
        # Not the SDK's own event: that also says that the workflow has cancelled, and such a body does begin.
        manager = getattr(self._context.cancelled_event.thread_event, "_manager", None)
        self._ended_elsewhere = manager.Event() if manager is not None else None
        return ProcessBody(fn, self._fingerprint, self._expected, self._ended_elsewhere)

    def _last_look(self, args: Sequence[Any]) -> None:
        if self.revoked is not None or not self._still_allowed():  # [B1]
            raise _ended(self.revoked or self._against, "The authorization ended before the activity began")
        if self.attempt.enforced and (
            self._fingerprint(args) != self._expected or not self.attempt.same_resource(args)
        ):  # [B2]
            raise GrantRejected(CHANGED)

    def _still_allowed(self) -> bool:
        """B3: judge again if anything changed; true when the attempt may go on."""
        gate = self.gate
        known = not gate.revocations.lapsed and (gate.guard is None or gate.guard.lost() is None)
        if self.judgement.epoch == gate.epoch and gate.clock() < self.judgement.until and known:
            return True
        judged = self.attempt.judge()
        self.rechecks += 1
        allowed = judged.allowed or not self.attempt.enforced
        self.gate.metrics.rechecked(allowed=allowed)
        if allowed:
            self.judgement = judged
            return True
        self._against = judged
        self.loop.call_soon_threadsafe(self._revoke, judged)
        return False

    def look_again(self) -> None:
        """B3, on the event loop."""
        if self.revoked is None:
            self._here.run(self._still_allowed)

    def look_again_soon(self) -> None:
        """B3, from any thread."""
        try:
            self.loop.call_soon_threadsafe(self.look_again)
        except RuntimeError:  # the loop has been closed and the body with it
            logger.debug("An activity's event loop has ended")

    def heartbeat(self) -> None:
        """B3 on a heartbeat, at most as often as configured unless something changed.

        Raises:
            AuthorizationRevoked: The attempt is no longer allowed. Not for a process pool, where an exception would end
                every heartbeat of the pool; there the body sees its cancellation.
            AuthorizationUnavailable: The same, where the release of the policies has ended.
        """
        if self.revoked is None:
            now = self.loop.time()
            # What a credential that has ended marks would be refused to the next attempt for good.
            gate = self.gate
            changed = self.judgement.epoch != gate.epoch or gate.workload.cut_off(gate.clock()) is not None
            if not changed and now - self._looked_at < self.gate.settings.recheck_interval.total_seconds():
                return
            self._looked_at = now
            if self._still_allowed():
                return
        if not self._in_process:
            raise _ended(self.revoked or self._against)

    def _revoke(self, judged: Judgement) -> None:
        """B4."""
        if self.revoked is not None or self._over:
            return
        self.revoked = judged  # [B4]
        self.gate.metrics.revoked(self.attempt.info.activity_type)
        self._wake()
        if self._ended_elsewhere is not None:
            with contextlib.suppress(OSError, EOFError):  # its manager has ended, and so has the body
                self._ended_elsewhere.set()

    def _abandon(self, body: asyncio.Future[Any]) -> None:
        """Cancel the body in the way its kind can see, and forget it."""
        context = self._context
        context.cancelled_event.set()
        if context.shield_thread_cancel_exception is not None:
            # The bound method of the SDK's own raiser, which respects the activity's shields.
            raiser = getattr(context.shield_thread_cancel_exception, "__self__", None)
            if raiser is not None:
                raiser.raise_in_thread(temporalio.exceptions.CancelledError)
        body.cancel("Authorization revoked")
        body.add_done_callback(_discard)


def _ended(judged: Judgement | None, otherwise: str = "The authorization ended") -> AuthorizationFailure:
    """What an attempt ends with: policies that are no longer in force are uncertainty, which is not a revocation."""
    unavailable = judged is not None and judged.failure is AuthorizationUnavailable
    kind = AuthorizationUnavailable if unavailable else AuthorizationRevoked
    return kind((judged and judged.reason) or otherwise)


def _discard(body: asyncio.Future[Any]) -> None:
    if not body.cancelled():
        error = body.exception()
        logger.info("A revoked activity's late %s was discarded", "failure" if error else "result")


def _named_like(fn: Callable[..., Any], wrapper: Callable[..., Any]) -> Callable[..., Any]:
    """As ``functools.wraps``, also for a callable that lacks some of the attributes."""
    return functools.update_wrapper(wrapper, fn)
