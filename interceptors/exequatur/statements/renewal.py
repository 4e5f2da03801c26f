"""May this grant take the place of the one that a run stands on? Decided from bytes alone.

A renewed grant comes in the details of a recorded failure. Rules, numbered as the code marks them:

Z1  It is signed by an anchor for grants, and its times are in order (G1, G3), for the same place (G2).
Z2  It renews the very leaf that the run stands on.
Z3  It is the same grant otherwise: its ``jti``, so that what revokes the grant revokes its renewals; principal, mode,
    queues, messages and protocol version.
Z4  It authorizes what the leaf authorizes, to the letter; that of a child says that it is a child's.
Z5  It ends within the run's absolute lifetime, which it does not prolong.
"""

from __future__ import annotations

from exequatur.errors import StatementError
from exequatur.statements.trust import TrustStore
from exequatur.statements.verification import Chain, Credentials, verify_chain

_SAME = ("sub", "jti", "attributes", "parents", "act", "mode", "recorded_queues", "open_messages", "ver")


def verify_renewal(text: str, before: Chain, trust: TrustStore) -> Chain:
    """Verify a renewed grant.

    Args:
        text: Compact token.
        before: What the run stands on, verified.
        trust: The anchors.

    Returns:
        What the run stands on from now on.

    Raises:
        UnknownKeyError: The trust store does not know the key of the grant: not a verdict.
        StatementError: V, T, G1 to G3, Z2 to Z5.
    """
    chain = verify_chain(text, (), Credentials(trust), trust, aud=before.grant.claims.aud)  # [Z1]
    after, root = chain.grant.claims, before.grant.claims
    if after.renews != before.leaf.digest:
        raise StatementError("Z2", "The renewed grant renews another one than that of this run")
    for name in _SAME:
        if getattr(after, name) != getattr(root, name):
            raise StatementError("Z3", f"The renewed grant has another {name.replace('_', ' ')}")
    held = before.authorization
    if before.delegations:
        held = held.model_copy(update={"child": True})
    if after.authorization != held:
        raise StatementError("Z4", "The renewed grant authorizes something else than the one before")
    if root.renew_until is None or after.renew_until is None or after.renew_until > root.renew_until:
        raise StatementError("Z5", "The renewed grant prolongs the lifetime of the run")
    if after.exp > after.renew_until:
        raise StatementError("Z5", "The renewed grant outlives the run's lifetime")
    return chain
