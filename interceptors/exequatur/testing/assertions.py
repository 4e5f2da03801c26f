"""Assertions about what the gate did: ``with assert_denied(by="refunds-limit"): ...``.

They stand around anything that ends in a failure of the gate: an activity in a gated environment, a workflow's start or
its result. Each also works as ``async with``. An exception that has nothing to do with authorization is reported
together with what the gate decided meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from difflib import get_close_matches
from types import TracebackType
from typing import Literal, Self

from exequatur.failures import (
    AuthorizationDenied,
    AuthorizationFailure,
    AuthorizationRevoked,
    AuthorizationUnavailable,
    GrantRejected,
    ReceiptRejected,
)
from exequatur.policy.engine import PolicyRef
from exequatur.testing.decided import decided_since
from exequatur.testing.plugins import tested_plugins
from exequatur.testing.refusal import Refusal, refusal_of


class Refused:
    """The block is refused in one way and no other.

    Args:
        failure: How.
        by: Ids of policies that must be among those that decided; ``()`` for "no policy permits it".
        reason: A part of the failure's message, or of the ``@reason`` of a policy that decided.
        activity: Type of the activity that must have been refused.
    """

    refusal: Refusal
    """What the failure said; set when the block has been left."""

    def __init__(
        self,
        failure: type[AuthorizationFailure],
        *,
        by: str | Collection[str] | None = None,
        reason: str | None = None,
        activity: str | None = None,
    ) -> None:
        self._type = failure.__name__
        self._by = None if by is None else frozenset({by} if isinstance(by, str) else by)
        self._reason = reason
        self._activity = activity
        self._entered = 0.0

    def __enter__(self) -> Self:
        self._entered = time.time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        __tracebackhide__ = True
        if error is not None and not isinstance(error, Exception):
            return False  # an interrupt, a cancellation or a test that gives up is not the block's outcome
        refusal = refusal_of(error)
        instead = self._instead(refusal, error)
        if refusal is None or instead is not None:
            raise AssertionError(f"expected {self._expected()}, but {instead}{self._told()}") from error
        self.refusal = refusal
        return True

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        __tracebackhide__ = True
        return self.__exit__(kind, error, traceback)

    def _expected(self) -> str:
        parts = [self._type]
        if self._by is not None:
            parts.append(f"by {_listed(self._by)}" if self._by else "because no policy permits it")
        if self._activity is not None:
            parts.append(f"of {self._activity}")
        if self._reason is not None:
            parts.append(f"saying {self._reason!r}")
        return " ".join(parts)

    def _instead(self, refusal: Refusal | None, error: BaseException | None) -> str | None:
        """What happened that was not expected, or ``None``."""
        if refusal is None:
            return "nothing was refused" if error is None else f"the block raised {_chain(error)}"
        said = f"{refusal.type}: {refusal.message}"
        if refusal.type != self._type:
            return f"it ended with {said}"
        if self._by is not None:
            decided = {policy.id for policy in refusal.policies}
            if (self._by and not self._by <= decided) or (not self._by and decided):
                by = f"by {_named(refusal.policies)}" if decided else "without a policy that forbids it"
                return f"it was refused {by}: {said}{self._unknown()}"
        if self._activity not in (None, refusal.activity):
            return f"{refusal.activity or 'something else'} was refused: {said}"
        if self._reason is not None:
            spoken = [refusal.message, *(policy.reason or "" for policy in refusal.policies)]
            if not any(self._reason in text for text in spoken):
                return f"it said: {refusal.message}"
        return None

    def _unknown(self) -> str:
        """A hint for an id that no policy has."""
        known = {info.id for plugin in tested_plugins() for info in plugin.gate.policy.bundle.policies.values()}
        hints = []
        for missing in sorted((self._by or frozenset()) - known) if known else ():
            near = get_close_matches(missing, known, n=1)
            hints.append(f"\n  no policy has the id {missing!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return "".join(hints)

    def _told(self) -> str:
        decisions = decided_since(self._entered)
        return "".join(f"\n  decided meanwhile: {decision}" for decision in decisions)


class Allowed:
    """No refusal leaves the block; other exceptions pass through."""

    def __init__(self) -> None:
        self._entered = 0.0

    def __enter__(self) -> Self:
        self._entered = time.time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        __tracebackhide__ = True
        refusal = refusal_of(error)
        if refusal is not None:
            by = f" by {_named(refusal.policies)}" if refusal.policies else ""
            told = "".join(f"\n  decided meanwhile: {decision}" for decision in decided_since(self._entered))
            raise AssertionError(
                f"expected nothing to be refused, but it was{by}: {refusal.type}: {refusal.message}{told}"
            ) from error
        return False

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        __tracebackhide__ = True
        return self.__exit__(kind, error, traceback)


def assert_denied(
    by: str | Collection[str] | None = None, *, reason: str | None = None, activity: str | None = None
) -> Refused:
    """The policies do not allow what the block does: a start or an activity.

    Args:
        by: Ids of policies that must be among those that decided; ``()`` for "no policy permits it".
        reason: A part of the failure's message, or of the ``@reason`` of a policy that decided.
        activity: Type of the activity that must have been refused.

    Raises:
        AssertionError: When the block is left otherwise; it says what happened and which policies decided.
    """
    return Refused(AuthorizationDenied, by=by, reason=reason, activity=activity)


def assert_rejected(*, reason: str | None = None, activity: str | None = None) -> Refused:
    """A grant or request is missing, expired, forged or for something else (``GrantRejected``).

    Args:
        reason: A part of the failure's message, for example its rule: ``"[G4]"``.
        activity: Type of the activity that must have been refused.

    Raises:
        AssertionError: As for :func:`assert_denied`.
    """
    return Refused(GrantRejected, reason=reason, activity=activity)


def assert_revoked(
    by: str | Collection[str] | None = None, *, reason: str | None = None, activity: str | None = None
) -> Refused:
    """The authorization ends while the activity runs, by revocation, by another policy or by time.

    Args:
        by: Ids of policies that must be among those that ended it.
        reason: A part of the failure's message, or of the ``@reason`` of a policy that decided.
        activity: Type of the activity that must have ended.

    Raises:
        AssertionError: As for :func:`assert_denied`.
    """
    return Refused(AuthorizationRevoked, by=by, reason=reason, activity=activity)


def assert_unavailable(*, reason: str | None = None) -> Refused:
    """It cannot be decided now (``AuthorizationUnavailable``).

    Args:
        reason: A part of the failure's message.

    Raises:
        AssertionError: As for :func:`assert_denied`.
    """
    return Refused(AuthorizationUnavailable, reason=reason)


def assert_receipt_rejected(*, reason: str | None = None) -> Refused:
    """The workflow does not believe a result, because no valid receipt came with it (``ReceiptRejected``).

    Args:
        reason: A part of the failure's message.

    Raises:
        AssertionError: As for :func:`assert_denied`.
    """
    return Refused(ReceiptRejected, reason=reason)


def assert_allowed() -> Allowed:
    """No refusal leaves the block.

    Exceptions that are not the gate's pass through, so that a test may expect those as usual.

    Raises:
        AssertionError: When something is refused; it says by which policies and why.
    """
    return Allowed()


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))


def _named(policies: Collection[PolicyRef]) -> str:
    return ", ".join(f"{policy.id} ({policy.reason})" if policy.reason else policy.id for policy in policies)


def _chain(error: BaseException | None) -> str:
    """An error and its causes, each with its first line."""
    said: list[str] = []
    while error is not None and len(said) < 8:
        said.append(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
        error = error.__cause__
    return " <- ".join(said)
