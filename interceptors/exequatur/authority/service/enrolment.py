"""``POST /v1/credentials``: a worker asks for a credential for its own key.

Rules, numbered as the code marks them (B are those of :mod:`exequatur.authority.possession`):

H17  A worker is who the configuration says that the caller is; whom it names no worker gets no credential. It acts for
     itself: nobody is enrolled on somebody else's behalf.
H18  It holds the key that it asks for (B1 to B3), and a proof is taken once, by all processes of the authority.
H19  The evidence of its code and machine verifies, where there is any, and nothing is said of either without evidence.
H20  Cedar strictly allows ``worker.enroll`` for this worker with exactly these roles and places, and none of worker,
     key and code is revoked.
H35  The credential ends no later than the one that the caller showed, which has not ended.
H36  Namespaces and task queues are names, and so are activity types, but for ``*``, which a worker with a dynamic
     activity needs: credentials take patterns, and one such as ``pay*`` would cover what policies, which are asked
     about names, forbid.
"""

from __future__ import annotations

from exequatur.authority.api import CredentialBody, Credentialed
from exequatur.authority.possession import KEPT, verify_possession
from exequatur.authority.service.answers import Refused, invalid
from exequatur.authority.service.parts import Service
from exequatur.errors import IdentityError, StatementError
from exequatur.identity.callers import Identified
from exequatur.identity.workload import CredentialOrder
from exequatur.policy.told import ENROLL_ACTION
from exequatur.statements.keys import thumbprint


async def enrol(service: Service, body: CredentialBody, caller: Identified) -> Credentialed:
    """Issue a workload credential.

    Args:
        service: Asks Cedar, remembers proofs, and signs.
        body: The order.
        caller: Who asks.

    Raises:
        Refused: H17, H18, H36.
        IdentityError: H35.
        StatementError: H19.
        AuthorizationDenied: H20.
        AuthorizationUnavailable: It cannot be decided or recorded.
    """
    settings, asking = service.settings, service.asking
    if caller.worker is None or caller.acting is not None:  # [H17]
        raise Refused(403, "access_denied", f"{caller.asks} is no worker; add a [[workload]] to the identity file")
    places = (*body.namespaces, *body.task_queues, *(each for each in body.activities if each != "*"))
    if pattern := next((each for each in places if set(each) & set("*?[")), None):  # [H36]
        raise invalid(f"{pattern[:100]!a} is a pattern; name each namespace, task queue and activity type")
    worker = f"spiffe://{settings.trust_domain}/{caller.worker.lstrip('/')}"
    site = f"{settings.trust_domain}/{settings.cluster}"
    now = asking.gate.clock()
    if caller.expires <= now:  # [H35]
        raise IdentityError("H35", "The credential has ended, and one that it is exchanged for would have, too")
    try:
        proof = verify_possession(body, site=site, now=now, leeway=settings.clock_leeway.total_seconds())  # H18
    except StatementError as err:
        raise Refused(400, "invalid_request", f"proof: {err}") from err
    key = thumbprint(body.key.x)
    if not service.once.first(f"possession {key} {proof.claims.jti}", until=proof.claims.iat + KEPT):  # [H18]
        raise Refused(400, "invalid_request", "proof: it was used before; make a new one")
    order = CredentialOrder(
        body.key,
        body.roles,
        body.namespaces,
        body.task_queues,
        body.activities,
        manifest=body.manifest,
        instance=body.instance,
    )
    evidence = service.authority.evidence_of(order)  # H19
    code = {} if evidence.code is None else {"code": evidence.code.digest}
    facts = {
        "id": worker,
        **evidence.facts(),
        "roles": sorted(set(body.roles)),
        "namespaces": sorted(set(body.namespaces)),
        "task_queues": sorted(set(body.task_queues)),
        "activities": sorted(set(body.activities)),
    }
    await asking.ask(  # [H20]
        caller.principal,
        ENROLL_ACTION,
        "",
        {"worker": facts},
        what=f"be the worker {worker}",
        subject={"worker": worker, "key": key, **code},
        record={"worker": worker, "key": key, **code},
    )
    credential = service.authority.issue_credential(order, worker=worker, ends=caller.expires)  # H35
    return Credentialed(credential=credential)
