"""The authority as a service elsewhere.

Rules, numbered as the code marks them (N1 to N5 are those of :mod:`exequatur.authority.connection`):

N8   Only the authority's own words are a refusal: a problem in JSON with the status that it belongs to. Whatever else
     comes (a page, a proxy's words, another type, too much) says nothing, and may be asked again.
N9   What is issued is for exactly what was asked, here and now, by a key that may sign it. Where this process named the
     principal, it is for that one.
N10  A renewed grant renews what the run stands on (Z1 to Z5 of :mod:`exequatur.statements.renewal`), and nothing but a
     denial of that very renewal keeps a run from being renewed.
N11  An approval is the decision that was made, about this challenge (O5 to O10 of
     :mod:`exequatur.statements.approvals`).
N12  A credential is for this worker's key and for all that it asked for, no more and no less.
N13  Who asks is shown by how this process identifies itself. Where it acts for somebody else, that one's credential is
     the subject and its own the actor (RFC 8693): it never asks as somebody else alone.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import ValidationError

from exequatur.authority.api import (
    APPROVALS_PATH,
    AUTHORIZATIONS_PATH,
    CERTIFICATE,
    CREDENTIALS_PATH,
    EXCHANGE,
    GRANT_TYPE,
    PERMIT_TYPE,
    RENEWALS_PATH,
    TOKEN_PATH,
    ApprovalBody,
    Approved,
    AuthorizationBody,
    Authorized,
    Body,
    CredentialBody,
    Credentialed,
    Exchanged,
    MessageDetails,
    Problem,
    RenewalBody,
    Renewed,
    WorkflowDetails,
    shown,
)
from exequatur.authority.connection import Answer, Connection, UnreachableError
from exequatur.authority.possession import prove
from exequatur.errors import ConfigurationError, ExequaturError, StatementError, UnknownKeyError
from exequatur.failures import AuthorizationDenied, AuthorizationFailure, AuthorizationUnavailable
from exequatur.gate.issuing import ActionOrder, ApprovalOrder, GrantOrder, Leave, PermitOrder, RenewalOrder
from exequatur.identity.credential import Credential
from exequatur.identity.principal import UNAUTHENTICATED
from exequatur.identity.sources import Identity, LocalIdentity
from exequatur.identity.workload import CredentialOrder
from exequatur.settings import Settings
from exequatur.statements.anchors import Anchors
from exequatur.statements.approvals import verify_approval, verify_challenge
from exequatur.statements.jws import parse
from exequatur.statements.models import Permit, WorkloadCredential
from exequatur.statements.renewal import verify_renewal
from exequatur.statements.requests import split
from exequatur.statements.verification import Chain, Credentials, audience, check_current, verify_chain

_OF_GRANT = ("workflow_type", "workflow_id", "task_queue", "input", "reuse", "schedule")
_OF_PERMIT = ("kind", "target", "name", "args", "run_id", "task_queue", "endpoint", "service")
_OF_CREDENTIAL = ("roles", "namespaces", "task_queues", "activities")
_LONGEST_REFUSAL = 32 * 1024
"""Bytes. What is refused stands in logs and in histories, which have limits of their own."""
_LONGEST_WAIT = 300.0
"""Seconds that the authority may have us wait before we ask again."""

T = TypeVar("T")
B = TypeVar("B", bound=Body)
AnyOrder = GrantOrder | PermitOrder | ActionOrder | ApprovalOrder


class RemoteAuthority:
    """Asks an authority service, and believes of its answers what it can verify.

    Args:
        connection: To the service.
        identity: How this process identifies itself.
        anchors: The service's trust anchors.
        settings: Trust domain, cluster, leeway.
    """

    far = True

    def __init__(self, connection: Connection, identity: Identity, anchors: Anchors, settings: Settings) -> None:
        self._connection = connection
        self._identity = identity
        self._anchors = anchors
        self._settings = settings
        self._site = f"{settings.trust_domain}/{settings.cluster}"
        self.clock: Callable[[], float] = time.time

    def __str__(self) -> str:
        return f"the authority {self._connection}"

    async def issue_grant(self, order: GrantOrder) -> str:
        """Have a grant issued.

        Raises:
            AuthorizationDenied: The authority does not allow it, or does not know who asks.
            AuthorizationUnavailable: It does not answer, or with something else than was asked for.
        """
        details = _written(
            lambda: WorkflowDetails(
                namespace=order.namespace,
                workflow_type=order.workflow_type,
                workflow_id=order.workflow_id,
                task_queue=order.task_queue,
                input=order.input,
                reuse=order.reuse,
                start_delay=order.start_delay,
                schedule=order.schedule,
            )
        )
        text = await self._exchanged(order, details, GRANT_TYPE)
        await self._checked(lambda: self._check_grant(text, order))
        return text

    async def issue_permit(self, order: PermitOrder) -> str:
        """Have a permit issued.

        Raises:
            AuthorizationDenied: As for a grant, as is the other.
            AuthorizationUnavailable: See there.
        """
        details = _written(
            lambda: MessageDetails(
                namespace=order.namespace, delay=order.delay, **{name: getattr(order, name) for name in _OF_PERMIT}
            )
        )
        text = await self._exchanged(order, details, PERMIT_TYPE)
        await self._checked(lambda: self._check_permit(text, order))
        return text

    async def authorize(self, order: ActionOrder) -> Leave:
        """Get leave for what goes straight to the Temporal server.

        Raises:
            AuthorizationDenied: As for a grant, as is the other.
            AuthorizationUnavailable: See there.
        """
        body = _written(
            lambda: AuthorizationBody(
                action=order.action,
                workflow_id=order.workflow_id,
                facts=dict(order.facts),
                record=dict(order.record),
            )
        )
        found = await self._posted(AUTHORIZATIONS_PATH, body, Authorized, order)
        await self._checked(lambda: _check_principal(found.principal, order))
        return Leave(found.principal, found.policies)

    async def renew_grant(self, order: RenewalOrder) -> str:
        """Have an ended grant renewed.

        Raises:
            AuthorizationDenied: The authority does not renew it.
            AuthorizationUnavailable: It does not say, for whatever reason.
        """
        body = _written(lambda: RenewalBody(namespace=order.namespace, tokens=order.tokens))
        own, _ = await self._who(None)
        answer = await self._asked(RENEWALS_PATH, _json(body, shown(own)))
        if answer.status not in (200, 403):  # [N10]
            raise AuthorizationUnavailable(self._refused(answer).message, next_retry_delay=self._after(answer))
        text = self._taken(answer, Renewed).grant
        await self._checked(lambda: self._check_renewal(text, order))
        return text

    async def issue_approval(self, order: ApprovalOrder) -> str:
        """Have a person's decision signed.

        Raises:
            AuthorizationDenied: As for a grant, as is the other.
            AuthorizationUnavailable: See there.
        """
        body = _written(
            lambda: ApprovalBody(
                challenge=order.challenge,
                credential=order.worker_credential,
                verdict=order.verdict,
                reason=order.reason,
            )
        )
        text = (await self._posted(APPROVALS_PATH, body, Approved, order)).approval
        await self._checked(lambda: self._check_approval(text, order))
        return text

    def issue_credential(self, order: CredentialOrder) -> str:
        """Have a workload credential issued. Waits for the answer.

        Raises:
            ConfigurationError: The authority cannot take such an order.
            ExequaturError: It will not issue one, or cannot now.
        """
        if order.signer is None:
            raise ConfigurationError("Possession of the key cannot be proven without the key")
        try:
            body = _credential_body(order)
            body = prove(body, order.signer, site=self._site, now=self.clock())
        except ValueError as err:
            raise ConfigurationError(f"No credential can be asked for: {_first_line(err)}") from None
        answer = self._connection.ask_now("POST", CREDENTIALS_PATH, **_json(body, shown(self._own())))
        if answer.status == 400 and (problem := _problem(answer)) is not None:
            raise ConfigurationError(f"The authority cannot credential this worker: {problem.error_description}")
        try:
            text = self._taken(answer, Credentialed).credential
            try:
                self._check_credential(text, order)
            except UnknownKeyError:
                self._anchors.refresh_if_due()
                self._check_credential(text, order)
        except AuthorizationFailure as err:
            raise ExequaturError(err.message) from None
        except StatementError as err:
            raise ExequaturError(self._other(err)) from None
        return text

    def headers(self) -> Mapping[str, str]:
        """What shows who asks.

        Raises:
            ExequaturError: This process cannot identify itself now.
        """
        return shown(self._own())

    # Asking.

    def _own(self) -> Credential | None:
        """How this process identifies itself; ``None`` where that is the certificate of its connection."""
        return self._identity.credential()

    async def _who(self, order: AnyOrder | None) -> tuple[Credential | None, Credential | None]:
        """Who asks, and on whose behalf where that is another (N13).

        Raises:
            AuthorizationUnavailable: This process cannot identify itself now.
        """
        try:
            own = await asyncio.to_thread(self._own)  # a callable may ask somebody
        except ExequaturError as err:
            raise AuthorizationUnavailable(f"This process cannot identify itself: {err}") from None
        if order is None:
            return own, None
        subject = order.credential
        if subject is None and order.principal != UNAUTHENTICATED:
            if order.acting is not None:
                raise AuthorizationDenied(
                    f"Who acts for {order.principal} is told by credentials, and {self} believes no names; leave out "
                    "through="
                )
            subject = LocalIdentity(order.principal).credential()
        return own, None if subject == own else subject  # [N13]

    async def _exchanged(self, order: GrantOrder | PermitOrder, details: Body, issued: str) -> str:
        own, subject = await self._who(order)
        asks = own or CERTIFICATE
        form = {
            "grant_type": EXCHANGE,
            "subject_token": (subject or asks).token,
            "subject_token_type": (subject or asks).type,
            "requested_token_type": issued,
            "audience": audience(self._settings.trust_domain, self._settings.cluster, order.namespace),
            "authorization_details": _written(lambda: json.dumps([details.model_dump(mode="json", exclude_none=True)])),
        }
        if subject is not None:  # [N13]
            form |= {"actor_token": asks.token, "actor_token_type": asks.type}
        answer = await self._asked(TOKEN_PATH, {"data": form})
        exchanged = self._taken(answer, Exchanged)
        if exchanged.issued_token_type != issued:  # [N9]
            raise AuthorizationUnavailable(self._other("it is another type of token"))
        return exchanged.access_token

    async def _posted(self, path: str, body: Body, kind: type[B], order: AnyOrder) -> B:
        own, subject = await self._who(order)
        return self._taken(await self._asked(path, _written(lambda: _json(body, shown(own, subject)))), kind)

    async def _asked(self, path: str, request: dict[str, Any]) -> Answer:
        try:
            return await self._connection.ask("POST", path, **request)
        except UnreachableError as err:
            raise AuthorizationUnavailable(
                f"{err}; what it has issued stays valid until that ends",
                next_retry_delay=self._settings.unavailable_retry_delay,
            ) from None

    def _taken(self, answer: Answer, kind: type[B]) -> B:
        """What an answer says.

        Raises:
            AuthorizationDenied: It says no, or cannot take what was asked.
            AuthorizationUnavailable: N8.
        """
        if answer.status != 200:
            raise self._refused(answer)
        try:
            if not answer.is_json:  # [N8]
                raise ValueError("it is not JSON")
            return kind.model_validate_json(answer.body)
        except (ValueError, ValidationError):  # [N8]
            raise AuthorizationUnavailable(
                f"The authority {self._connection} answers with something that is no answer; is it one?"
            ) from None

    def _refused(self, answer: Answer) -> AuthorizationFailure:
        status, problem = answer.status, _problem(answer)
        if problem is None:  # [N8]
            return AuthorizationUnavailable(
                f"The authority {self._connection} answers {status}, and not with its own words; is something between?",
                next_retry_delay=self._settings.unavailable_retry_delay,
            )
        said = problem.error_description
        if status == 403 and problem.error == "access_denied":
            return AuthorizationDenied(said, problem.details)
        if status == 401:
            return AuthorizationDenied(
                f"The authority {self._connection} does not know who asks: {said}. Check identity= and acting_as"
            )
        if status in (400, 404, 405, 413, 415):
            return AuthorizationDenied(f"The authority {self._connection} cannot take this: {said}")
        return AuthorizationUnavailable(
            f"The authority {self._connection} cannot decide now: {said}", next_retry_delay=self._after(answer)
        )

    def _after(self, answer: Answer) -> timedelta:
        """When to ask again, as the authority wants it (RFC 9110, section 10.2.3)."""
        given = answer.headers.get("retry-after", "")
        if given.isascii() and given.isdigit() and len(given) < 10:
            return timedelta(seconds=min(max(float(given), 0.1), _LONGEST_WAIT))
        return self._settings.unavailable_retry_delay

    # Believing.

    async def _checked(self, check: Callable[[], object]) -> None:
        """Check what was issued, after one look at the trust anchors if its key is not known.

        Raises:
            AuthorizationUnavailable: It is something else than what was asked for.
        """
        try:
            try:
                check()
            except UnknownKeyError:
                await asyncio.to_thread(self._anchors.refresh_if_due)
                check()
        except StatementError as err:
            raise AuthorizationUnavailable(self._other(err)) from None

    def _other(self, why: object) -> str:
        return f"The authority {self._connection} issued something else than what was asked for: {why}"

    def _audience(self, namespace: str) -> str:
        return audience(self._settings.trust_domain, self._settings.cluster, namespace)

    def _check_grant(self, text: str, order: GrantOrder) -> None:
        """N9."""
        chain = self._chain(text, order.namespace)
        check_current(chain, self.clock(), self._settings.clock_leeway.total_seconds())  # [N9]
        held = chain.authorization
        _same(held, order, _OF_GRANT, "The grant")
        if held.child or chain.grant.claims.renews is not None:  # [N9]
            raise StatementError("N9", "The grant is for a run that has begun")
        _check_principal(chain.grant.claims.sub, order)

    def _chain(self, text: str, namespace: str) -> Chain:
        trust = self._anchors.trust
        return verify_chain(text, (), Credentials(trust), trust, aud=self._audience(namespace))  # [N9]

    def _check_permit(self, text: str, order: PermitOrder) -> None:
        """N9."""
        token = parse(text, Permit)
        self._anchors.trust.verify(token)  # [N9]
        claims, now = token.claims, self.clock()
        if claims.aud != self._audience(order.namespace):  # [N9]
            raise StatementError("N9", f"The permit is for {claims.aud}")
        if now >= claims.exp or claims.iat > now + self._settings.clock_leeway.total_seconds():  # [N9]
            raise StatementError("N9", "The permit is not good now; check the clocks")
        _same(claims, order, _OF_PERMIT, "The permit")
        _check_principal(claims.sub, order)

    def _check_renewal(self, text: str, order: RenewalOrder) -> None:
        """N10."""
        trust = self._anchors.trust
        grant, delegations, credential_texts, _ = split(order.tokens)
        credentials = Credentials(trust)
        for each in credential_texts:
            credentials.add(each)
        aud, depth = self._audience(order.namespace), self._settings.max_delegation_depth
        chain = verify_chain(grant, delegations, credentials, trust, aud=aud, max_depth=depth)
        verify_renewal(text, chain, trust)  # [N10]

    def _check_approval(self, text: str, order: ApprovalOrder) -> None:
        """N11."""
        trust, now = self._anchors.trust, self.clock()
        challenge = verify_challenge(order.challenge, order.worker_credential, trust, site=self._site, now=now)
        aud = self._audience(challenge.claims.namespace)
        approval = verify_approval(text, challenge, trust, aud=aud, now=now).claims  # [N11]
        if (approval.verdict, approval.reason) != (order.verdict, order.reason):  # [N11]
            raise StatementError("N11", "The approval says something else than what was decided")
        _check_principal(approval.sub, order)

    def _check_credential(self, text: str, order: CredentialOrder) -> None:
        """N12."""
        token = parse(text, WorkloadCredential)
        self._anchors.trust.verify(token)  # [N12]
        claims, now = token.claims, self.clock()
        if claims.cnf.jwk != order.key:  # [N12]
            raise StatementError("N12", "The credential is for another key")
        if claims.aud != self._site:  # [N12]
            raise StatementError("N12", f"The credential is for {claims.aud}, and this is {self._site}")
        for name in _OF_CREDENTIAL:
            if set(getattr(claims, name)) != set(getattr(order, name)):  # [N12]
                raise StatementError("N12", f"The credential names other {name.replace('_', ' ')}")
        if not claims.nbf <= now < claims.exp:  # [N12]
            raise StatementError("N12", "The credential is not valid now; check the clocks")


def _same(issued: object, order: object, names: tuple[str, ...], what: str) -> None:
    """Raises StatementError: N9."""
    for name in names:
        if getattr(issued, name) != getattr(order, name):  # [N9]
            raise StatementError("N9", f"{what} names another {name.replace('_', ' ')}")


def _check_principal(sub: str, order: AnyOrder) -> None:
    """Where this process named the principal, it is that one. Raises StatementError: N9."""
    if order.credential is None and order.principal != UNAUTHENTICATED and sub != str(order.principal):  # [N9]
        raise StatementError("N9", f"It is on behalf of {sub[:200]}")


def _credential_body(order: CredentialOrder) -> CredentialBody:
    return CredentialBody(
        key=order.key,
        roles=order.roles,
        namespaces=order.namespaces,
        task_queues=order.task_queues,
        activities=order.activities,
        proof="",
        manifest=order.manifest,
        instance=order.instance,
    )


def _json(body: Body, headers: Mapping[str, str]) -> dict[str, Any]:
    content = body.model_dump_json(exclude_none=True).encode()
    return {"content": content, "headers": {**headers, "Content-Type": "application/json"}}


def _written(make: Callable[[], T]) -> T:
    """What is asked for, written down.

    Raises:
        AuthorizationDenied: It cannot be.
    """
    try:
        return make()
    except ValueError as err:
        if isinstance(err, ValidationError):
            first = err.errors(include_input=False, include_url=False)[0]
            why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        else:
            why = _first_line(err)
        raise AuthorizationDenied(f"It cannot be written down what is asked: {why}") from None


def _problem(answer: Answer) -> Problem | None:
    if not answer.is_json or len(answer.body) > _LONGEST_REFUSAL:  # [N8]
        return None
    try:
        return Problem.model_validate_json(answer.body)
    except ValueError:
        return None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
