"""Assertions that read well when they hold, and say what happened when they do not."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError, RetryState

from exequatur.failures import (
    AuthorizationDenied,
    AuthorizationFailure,
    AuthorizationRevoked,
    AuthorizationUnavailable,
    GrantRejected,
    ReceiptRejected,
)
from exequatur.testing import (
    GatedActivityEnvironment,
    assert_allowed,
    assert_denied,
    assert_receipt_rejected,
    assert_rejected,
    assert_revoked,
    assert_unavailable,
    refusal_of,
)
from tests.testing.scenes import refund

DETAILS = {
    "principal": 'Agent::"ops-bot"',
    "activity": "refund",
    "policies": [{"id": "refunds-limit", "reason": "a refund above 500 needs a person"}],
}


def denied(**changes: Any) -> AuthorizationDenied:
    return AuthorizationDenied('Agent::"ops-bot" may not run refund', DETAILS | changes)


def in_a_workflow(failure: AuthorizationFailure) -> WorkflowFailureError:
    """The failure as a client meets it: decoded, so no longer of its own class, and wrapped twice."""
    decoded = ApplicationError(failure.message, *failure.details, type=failure.type, non_retryable=True)
    activity = ActivityError(
        "Activity task failed",
        scheduled_event_id=5,
        started_event_id=6,
        identity="",
        activity_type="refund",
        activity_id="1",
        retry_state=RetryState.NON_RETRYABLE_FAILURE,
    )
    activity.__cause__ = decoded
    return WorkflowFailureError(cause=activity)


@pytest.mark.parametrize("error", [denied(), in_a_workflow(denied())])
@pytest.mark.parametrize(
    "expected",
    [
        {},
        {"by": "refunds-limit"},
        {"by": ["refunds-limit"]},
        {"reason": "needs a person"},
        {"reason": "may not run"},
        {"activity": "refund"},
        {"by": {"refunds-limit"}, "reason": "above 500", "activity": "refund"},
    ],
)
def test_a_denial_that_is_expected_passes(error: Exception, expected: Any) -> None:
    with assert_denied(**expected) as block:
        raise error
    assert block.refusal.principal == 'Agent::"ops-bot"'
    assert [policy.id for policy in block.refusal.policies] == ["refunds-limit"]


async def test_it_also_stands_as_async_with() -> None:
    async with assert_denied(by="refunds-limit"):
        raise denied()
    async with assert_allowed():
        await asyncio.sleep(0)
    with pytest.raises(AssertionError, match="nothing was refused"):
        async with assert_denied():
            await asyncio.sleep(0)
    with pytest.raises(AssertionError, match="expected nothing to be refused"):
        async with assert_allowed():
            raise denied()


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ({"by": "refunds-daily"}, r"by refunds-daily, but it was refused by refunds-limit \(a refund above 500"),
        ({"by": ["refunds-limit", "other"]}, "by other, refunds-limit, but it was refused by refunds-limit"),
        ({"by": ()}, "because no policy permits it, but it was refused by refunds-limit"),
        ({"reason": "night"}, "saying 'night', but it said: Agent"),
        ({"activity": "pay"}, "of pay, but refund was refused"),
    ],
)
def test_another_denial_fails_and_is_told(expected: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=said) as failed, assert_denied(**expected):
        raise denied()
    assert isinstance(failed.value.__cause__, AuthorizationDenied)


def test_a_denial_for_want_of_a_permit_is_told_from_one_by_a_policy() -> None:
    with assert_denied(by=()):
        raise denied(policies=[])
    with pytest.raises(AssertionError, match="without a policy that forbids it"), assert_denied(by="refunds-limit"):
        raise denied(policies=[])


KINDS = {
    AuthorizationDenied: assert_denied,
    GrantRejected: assert_rejected,
    AuthorizationRevoked: assert_revoked,
    AuthorizationUnavailable: assert_unavailable,
    ReceiptRejected: assert_receipt_rejected,
}


@pytest.mark.parametrize("expected", KINDS)
@pytest.mark.parametrize("happened", KINDS)
def test_each_assertion_takes_its_own_failure_and_no_other(expected: Any, happened: Any) -> None:
    if happened is expected:
        with KINDS[expected](reason="so it is"):
            raise happened("so it is")
    else:
        with (
            pytest.raises(AssertionError, match=f"expected {expected.__name__}, but it ended with {happened.__name__}"),
            KINDS[expected](),
        ):
            raise happened("so it is")


def test_an_unrelated_error_is_told_with_its_causes() -> None:
    told = pytest.raises(AssertionError, match="the block raised RuntimeError: outer <- ValueError: inner")
    with told, assert_denied():
        raise RuntimeError("outer\nmore") from ValueError("inner")


def test_an_unrelated_error_passes_where_nothing_may_be_refused() -> None:
    with pytest.raises(ValueError, match="unrelated"), assert_allowed():
        raise ValueError("unrelated")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_an_interruption_is_nobodys_outcome(error: type[BaseException]) -> None:
    with pytest.raises(error), assert_denied():
        raise error
    with pytest.raises(pytest.fail.Exception), assert_denied():
        pytest.fail("the test gives up")


async def test_what_was_decided_instead_is_told(gated_activities: GatedActivityEnvironment) -> None:
    await gated_activities.run(refund, 1)
    with pytest.raises(AssertionError) as failed, assert_denied(by="refunds-limit"):
        await gated_activities.run(refund, 2)
    assert str(failed.value).splitlines() == [
        "expected AuthorizationDenied by refunds-limit, but nothing was refused",
        '  decided meanwhile: refund for Agent::"ops-bot" was allowed by refunds-by-operations',
    ]


async def test_a_misspelt_policy_is_named(gated_activities: GatedActivityEnvironment) -> None:
    told = pytest.raises(AssertionError, match="no policy has the id 'refund-limit'; did you mean 'refunds-limit'")
    with told, assert_denied(by="refund-limit"):
        await gated_activities.run(refund, 501)


async def test_a_refusal_where_none_is_expected_names_its_policy(gated_activities: GatedActivityEnvironment) -> None:
    told = pytest.raises(AssertionError, match=r"was by refunds-limit \(a refund above 500 needs a person\)")
    with told, assert_allowed():
        await gated_activities.run(refund, 501)


def test_a_cause_that_leads_back_to_itself_has_an_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert refusal_of(first) is None
    with pytest.raises(AssertionError, match="ValueError"), assert_denied():
        raise first


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(
        json_values
        | st.fixed_dictionaries(
            {}, optional={"policies": json_values, "principal": json_values, "activity": json_values}
        ),
        max_size=2,
    )
)
def test_details_of_any_shape_are_read(details: list[Any]) -> None:
    refusal = refusal_of(ApplicationError("no", *details, type="AuthorizationDenied"))
    if not details or not isinstance(details[0], dict) or "principal" not in details[0]:
        assert refusal is None  # the gate always says on whose behalf
        return
    assert refusal is not None
    assert refusal.message == "no"
    assert refusal.principal is None or isinstance(refusal.principal, str)
    assert all(isinstance(policy.id, str) for policy in refusal.policies)


@given(st.text(), json_values)
def test_a_failure_of_another_type_is_no_refusal(kind: str, details: Any) -> None:
    if kind not in {cls.__name__ for cls in KINDS}:
        assert refusal_of(ApplicationError("no", details, type=kind)) is None
