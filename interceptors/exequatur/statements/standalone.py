"""Does this permit authorize this very activity, which no workflow scheduled? The bindings that the gate checks.

Pure: the gate passes in what Temporal says about the task. Rules, numbered as the code marks them (V, T and P are those
of :mod:`exequatur.statements.jws`, :mod:`exequatur.statements.trust` and :mod:`exequatur.statements.receipts`):

Y1  The header holds one permit and nothing else.
Y2  It is signed by an anchor for permits.
Y3  Its audience is this trust domain, cluster and namespace.
Y4  It is for an activity, and for this activity id and activity type.
Y5  It is for this task queue.
Y6  The arguments are those whose digest was signed.
Y7  The activity was scheduled while the permit lasted. That is the same for all attempts, so retries go on after it.
Y8  It serves one run of the activity (the gate's journal remembers which).

And may the client that started it believe its result?

Its receipt is verified as that of any activity (P1, P2, P4 to P6), with the credential that came along, and:

Y9  It is of this run of this activity, and of the permit that the client got, unless it joined a run that was there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exequatur.errors import StatementError
from exequatur.statements.jws import Token, parse, type_of
from exequatur.statements.models import Permit, Receipt
from exequatur.statements.receipts import check_outcome, open_receipt
from exequatur.statements.trust import TrustStore
from exequatur.statements.verification import Credentials, Scope


def standalone_id(activity_id: str) -> str:
    """What stands for the workflow, in Cedar and in the evidence, where an activity has none."""
    return f"standalone/{activity_id}"


@dataclass(frozen=True)
class Lone:
    """What Temporal says about an activity that stands by itself."""

    activity_id: str
    activity_type: str
    task_queue: str
    scheduled: float
    """Seconds since 1970; the same for all attempts."""
    args: str
    """Digest of the arguments' payloads as this worker got them."""


def verify_standalone(
    tokens: Sequence[str], task: Lone, trust: TrustStore, *, aud: str, leeway: float
) -> Token[Permit]:
    """Verify what the header of an activity that stands by itself holds against that activity.

    Args:
        tokens: Compact tokens in the header's order.
        task: What Temporal says.
        trust: The anchors.
        aud: This trust domain, cluster and namespace.
        leeway: How far the clocks of server and authority may differ, in seconds.

    Raises:
        UnknownKeyError: The trust store does not know the key.
        StatementError: V, T, Y1 to Y7.
    """
    if len(tokens) != 1 or type_of(tokens[0]) != Permit.typ:
        raise StatementError("Y1", "An activity that no workflow scheduled must come with one permit and nothing else")
    permit = parse(tokens[0], Permit)
    claims = permit.claims
    trust.verify(permit)  # [Y2]
    if claims.aud != aud:
        raise StatementError("Y3", f"The permit is for {claims.aud}, not for {aud}")
    if claims.kind != "activity":
        raise StatementError("Y4", f"The permit is for a {claims.kind}, not for an activity")
    if claims.target != task.activity_id:
        raise StatementError("Y4", "The permit is for another activity id")
    if claims.name != task.activity_type:
        raise StatementError("Y4", f"The permit is for {claims.name}, not for {task.activity_type}")
    if claims.task_queue != task.task_queue:
        raise StatementError("Y5", f"The permit is for task queue {claims.task_queue}, not {task.task_queue}")
    if claims.args != task.args:
        raise StatementError("Y6", "The arguments are not those that were permitted")
    if not claims.iat - leeway <= task.scheduled <= claims.exp + leeway:
        raise StatementError("Y7", "The activity was not scheduled while its permit lasted; start it again")
    return permit


def verify_lone_receipt(
    packed: bytes | None,
    result: str,
    trust: TrustStore,
    scope: Scope,
    *,
    activity_id: str,
    run_id: str,
    permit: str | None,
) -> Token[Receipt]:
    """Verify the receipt that came with the result of an activity that stands by itself.

    Args:
        packed: The result's receipt metadata, or ``None`` when it has none.
        result: Digest of the result's payload.
        trust: The anchors.
        scope: Where the activity was to run; its activity type is the one that was started.
        activity_id: Of the activity.
        run_id: The run that the server started or named.
        permit: Digest of the permit that the run was started with; ``None`` where it may be another's.

    Raises:
        UnknownKeyError: The trust store does not know the key that signed the credential: not a verdict.
        StatementError: P1, P2, P4 to P6, Y9, and the rules that they rest on.
    """
    receipt = open_receipt(packed, Credentials(trust), scope)
    claims = receipt.claims
    expected = (activity_id, scope.activity_type, run_id)
    if (claims.activity_id, claims.activity_type, claims.run_id) != expected:
        raise StatementError("Y9", "The receipt is of another activity, or of another run of it")
    if permit is not None and claims.request != permit:
        raise StatementError("Y9", "The receipt is of a run that was started with another permit")
    check_outcome(claims, result)
    return receipt
