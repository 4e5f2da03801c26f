"""Only a policy's no is for a model to reason about."""

import pytest
from temporalio.exceptions import ApplicationError, FailureError

from exequatur.failures import (
    AuthorizationDenied,
    AuthorizationFailure,
    AuthorizationRevoked,
    AuthorizationUnavailable,
    GrantRejected,
    ReceiptRejected,
)
from workflows.agents.denial import denial


def caused_by(error: ApplicationError) -> FailureError:
    """As Temporal wraps what an activity failed with."""
    failure = FailureError("Activity task failed")
    failure.__cause__ = error
    return failure


def test_a_denial_is_told_in_its_own_words() -> None:
    assert denial(caused_by(AuthorizationDenied("no, because"))) == "no, because"


@pytest.mark.parametrize("kind", [AuthorizationRevoked, AuthorizationUnavailable, GrantRejected, ReceiptRejected])
def test_any_other_refusal_is_not_for_the_model(kind: type[AuthorizationFailure]) -> None:
    assert denial(caused_by(kind("no"))) is None


@pytest.mark.parametrize(
    "error",
    [
        ApplicationError("the printer is on fire"),
        ApplicationError("no, because", type="AuthorizationDenied"),
        ApplicationError("no, because", {"because": "I say so"}, type="AuthorizationDenied"),
    ],
    ids=["broken", "named-alike", "with-details"],
)
def test_a_tool_that_fails_by_itself_is_no_denial(error: ApplicationError) -> None:
    assert denial(caused_by(error)) is None
