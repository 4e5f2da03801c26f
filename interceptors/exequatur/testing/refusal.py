"""What a failure says about the authorization that was refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from temporalio.exceptions import ApplicationError

from exequatur.failures import FAILURE_TYPES, AuthorizationDenied
from exequatur.policy.engine import PolicyRef

_DEEPEST = 64
"""How long a chain of causes is followed."""


@dataclass(frozen=True)
class Refusal:
    """A refused authorization, as client code or a test meets it.

    Args:
        type: Name of the failure, for example ``"AuthorizationDenied"``.
        message: The sentence that a person reads.
        principal: On whose behalf, as ``Type::"id"``, where the failure says so.
        activity: Activity type, where the failure says so.
        policies: The policies that decided.
        failure: The failure itself.
    """

    type: str
    message: str
    principal: str | None
    activity: str | None
    policies: tuple[PolicyRef, ...]
    failure: ApplicationError


def refusal_of(error: BaseException | None) -> Refusal | None:
    """Find the gate's failure behind an error, however deep Temporal has wrapped it.

    Args:
        error: For example a ``WorkflowFailureError``.

    Returns:
        What it says, or ``None`` when no failure of the gate is among the causes.
    """
    for _ in range(_DEEPEST):
        if error is None:
            return None
        if isinstance(error, ApplicationError) and error.type in FAILURE_TYPES and _of_the_gate(error):
            return _read(error)
        error = error.__cause__
    return None


def _of_the_gate(failure: ApplicationError) -> bool:
    """Whether the gate raised it: a body that ran may name a failure of its own like a denial."""
    if failure.type != AuthorizationDenied.__name__ or isinstance(failure, AuthorizationDenied):
        return True
    return bool(failure.details and isinstance(failure.details[0], Mapping) and "principal" in failure.details[0])


def _read(failure: ApplicationError) -> Refusal:
    details = failure.details[0] if failure.details and isinstance(failure.details[0], Mapping) else {}
    policies = details.get("policies")
    return Refusal(
        type=failure.type or "",
        message=failure.message,
        principal=_text(details.get("principal")),
        activity=_text(details.get("activity")),
        policies=tuple(map(_policy, policies)) if isinstance(policies, (list, tuple)) else (),
        failure=failure,
    )


def _policy(entry: Any) -> PolicyRef:
    """A policy in the form of an activity's failure, or the bare id in that of a refused start."""
    if isinstance(entry, Mapping):
        return PolicyRef(str(entry.get("id")), _text(entry.get("reason")))
    return PolicyRef(str(entry), None)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
