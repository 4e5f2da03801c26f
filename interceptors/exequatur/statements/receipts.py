"""May the workflow believe this result? The receipt rules, decided from recorded bytes alone.

P1  There is a receipt, packed, within its cap, after at most one credential.
P2  It is signed by a worker in the role ``receipt``, for this namespace, task queue and activity type (C1 to C7).
P3  It is for the request that this workflow made.
P4  It says that the activity was allowed, or that enforcement was off.
P5  It says that the activity completed.
P6  The result is the one whose digest was signed.
P7  For a local activity it repeats the request's core and the digest of the arguments, which Temporal does not record.
"""

from __future__ import annotations

from exequatur.errors import StatementError
from exequatur.statements.jws import Token, parse
from exequatur.statements.models import Receipt, RequestCore
from exequatur.statements.packing import unpack
from exequatur.statements.verification import Credentials, Scope

MAX_PACKED_BYTES = 16_384
"""Receipt and credential. They are about 700 bytes; Temporal allows names of 1,000 characters."""


def verify_receipt(
    packed: bytes | None,
    core: RequestCore,
    result: str,
    credentials: Credentials,
    scope: Scope,
    *,
    local_args: str | None = None,
) -> Token[Receipt]:
    """Verify the receipt that came with a result.

    Args:
        packed: The result's receipt metadata, or ``None`` when it has none.
        core: Of the request, as the workflow computed it.
        result: Digest of the result's payload.
        credentials: Those that came with receipts in this run before; one that comes now is added.
        scope: Where the activity was to run.
        local_args: Digest of the arguments, for a local activity.

    Raises:
        UnknownKeyError: The trust store does not know the key that signed the credential: not a verdict.
        StatementError: P1 to P7, and the rules that they rest on.
    """
    receipt = open_receipt(packed, credentials, scope)
    claims = receipt.claims
    if claims.request != core.hash():
        raise StatementError("P3", "The receipt is for another request")
    check_outcome(claims, result)
    if local_args is not None and (claims.core != core or claims.args != local_args):
        raise StatementError("P7", "The receipt of a local activity does not repeat what was requested")
    return receipt


def open_receipt(packed: bytes | None, credentials: Credentials, scope: Scope) -> Token[Receipt]:
    """Read the receipt that came with a result, and check who signed it.

    Args:
        packed: The result's receipt metadata, or ``None`` when it has none.
        credentials: Those that are known; one that comes now is added.
        scope: Where the activity was to run.

    Raises:
        UnknownKeyError: The trust store does not know the key that signed the credential: not a verdict.
        StatementError: P1, P2.
    """
    if packed is None:
        raise StatementError("P1", "The result came without a receipt")
    if len(packed) > MAX_PACKED_BYTES:
        raise StatementError("P1", "The receipt is too large")
    tokens = unpack(packed)
    if not 1 <= len(tokens) <= 2:
        raise StatementError("P1", "The result must come with at most one credential and one receipt")
    receipt = parse(tokens[-1], Receipt)
    for text in tokens[:-1]:
        credentials.add(text)
    credentials.verify(receipt, "receipt", scope)  # [P2]
    return receipt


def check_outcome(claims: Receipt, result: str) -> None:
    """Check that a receipt says of this result that it may be believed.

    Raises:
        StatementError: P4 to P6.
    """
    if claims.decision != "allow" and claims.enforced:
        raise StatementError("P4", "The receipt says that the activity was not allowed")
    if claims.outcome != "completed":
        raise StatementError("P5", f"The receipt says that the activity ended as {claims.outcome}")
    if claims.result != result:
        raise StatementError("P6", "The result is not the one that the receipt is for")
