"""Renews the grant of a run that has outlived it.

The gate brings what an activity came with; the authority believes nothing but what is signed there. Rules, numbered as
the code marks them (Z1 to Z5 are those of :mod:`exequatur.statements.renewal`, Q those of
:mod:`exequatur.authority.asking`):

Z8   Grant and delegations verify for this trust domain, cluster and namespace, and a worker with a credential asks in
     the name of the very run: its request stands on them.
Z9   The leaf has ended, and the run's absolute lifetime has not.
Z10  Neither grant, principal nor workflow is revoked (Q2), nor a key, worker or code that signed what came along: a
     grant of a stolen key does not become one of another key. Cedar strictly allows ``grant.renew`` (Q3).
Z11  What is signed is what the run will take (Z1 to Z5): the same, for as long as a grant lasts, and no longer than the
     lifetime.
"""

from __future__ import annotations

from exequatur.authority.asking import Asking
from exequatur.authority.state import State
from exequatur.errors import StatementError
from exequatur.failures import AuthorizationDenied
from exequatur.gate.backing import backed_by
from exequatur.gate.issuing import RenewalOrder
from exequatur.identity.principal import Principal
from exequatur.policy.told import RENEW_ACTION
from exequatur.settings import Settings
from exequatur.statements.jws import Token, parse
from exequatur.statements.models import Request, first_names
from exequatur.statements.renewal import verify_renewal
from exequatur.statements.requests import split
from exequatur.statements.verification import Chain, Credentials, Scope, audience, verify_chain


async def renew_grant(order: RenewalOrder, asking: Asking, state: State, settings: Settings) -> str:
    """Issue a grant that replaces an ended one.

    Args:
        order: What the gate brings.
        asking: Asks Cedar and keeps the evidence.
        state: Holds the trust anchors and the key for grants.
        settings: Lifetimes.

    Returns:
        The compact grant.

    Raises:
        AuthorizationDenied: Z8 to Z10.
        AuthorizationUnavailable: It cannot be decided or recorded.
    """
    try:
        chain, request = _verified(order, state, settings)
        backed = backed_by(order.tokens)
    except StatementError as err:
        raise AuthorizationDenied(f"What the run stands on cannot be renewed: {err}") from err
    root, held, claims = chain.grant.claims, chain.authorization, request.claims
    now = asking.gate.clock()
    if root.renew_until is None or now >= root.renew_until:  # [Z9]
        raise AuthorizationDenied("The lifetime of the run has ended; start the workflow again")
    if now < chain.expires:  # [Z9]
        raise AuthorizationDenied("The grant has not ended; ask again when it has")
    try:
        named = Principal.parse(root.sub)
        principal = Principal(named.type, named.id, root.attributes, root.parents)
    except ValueError as err:
        raise AuthorizationDenied(f"The grant's principal cannot be read: {err}") from err
    verdict = await asking.ask(  # [Z10]
        principal,
        RENEW_ACTION,
        claims.workflow_id,
        {
            "run": {
                "namespace": claims.namespace,
                "workflow_id": claims.workflow_id,
                "workflow_type": claims.workflow_type,
            }
        },
        what=f"renew the grant of workflow {claims.workflow_id}",
        subject={"grant": root.jti, "key": backed.keys, "worker": backed.workers, "code": backed.code},
        acting=root.act,
        record={
            "grant": root.jti,
            "renews": chain.leaf.digest,
            "request": claims.jti,
            "run_id": claims.original_run_id,
        },
    )
    now = asking.gate.clock()
    issued = float(int(now))
    try:
        grant = await state.sign(
            "grant",
            root.model_copy(
                update={
                    "iss": state.issuer,
                    "iat": issued,
                    "nbf": issued,
                    "exp": float(int(min(now + settings.grant_ttl.total_seconds(), root.renew_until))),
                    "start_by": issued,
                    "authorization_details": (held.model_copy(update={"child": True}) if chain.delegations else held,),
                    "bundle": asking.gate.policy.bundle.digest,
                    "policies": first_names(ref.id for ref in verdict.policies),
                    "renews": chain.leaf.digest,
                }
            ),
        )
        return verify_renewal(grant.text, chain, state.trust).grant.text  # [Z11]
    except (ValueError, StatementError) as err:
        raise AuthorizationDenied(f"No grant can be written for {principal}: {str(err).splitlines()[0]}") from err


def _verified(order: RenewalOrder, state: State, settings: Settings) -> tuple[Chain, Token[Request]]:
    """Verify what the gate brings.

    Raises:
        StatementError: Z8.
    """
    grant, delegations, credential_texts, text = split(order.tokens)
    credentials = Credentials(state.trust)
    for each in credential_texts:
        credentials.add(each)
    aud = audience(settings.trust_domain, settings.cluster, order.namespace)
    chain = verify_chain(  # [Z8]
        grant, delegations, credentials, state.trust, aud=aud, max_depth=settings.max_delegation_depth
    )
    request = parse(text, Request)
    claims, leaf = request.claims, chain.authorization
    credentials.verify(request, "request", Scope(chain.site, namespace=order.namespace))  # [Z8]
    if claims.jti != claims.hash() or claims.grant != chain.leaf.digest or claims.namespace != order.namespace:
        raise StatementError("Z8", "The request does not stand on the grant that came along")
    types = (leaf.workflow_type, *leaf.continues_as)
    if not leaf.is_for(claims.workflow_id) or claims.workflow_type not in types or claims.start_fault is not None:
        raise StatementError("Z8", "The grant is not for the run that asks")
    return chain, request
