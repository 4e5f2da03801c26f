"""``POST /oauth/token``: a credential is exchanged for a grant or a permit (RFC 8693).

Rules, numbered as the code marks them:

H12  One grant type; no parameter twice (RFC 6749, section 3.2), and none that would be ignored.
H13  ``authorization_details`` names exactly one thing, of a known type, and says of it what the grant or permit is to
     say. What else is asked for agrees with it: token type and audience.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl

from pydantic import Field, TypeAdapter, ValidationError

from exequatur.authority.api import EXCHANGE, GRANT_TYPE, PERMIT_TYPE, Exchanged, MessageDetails, WorkflowDetails
from exequatur.authority.service.answers import Refused, invalid
from exequatur.gate.issuing import Authority, GrantOrder, PermitOrder
from exequatur.identity.callers import Identified
from exequatur.identity.credential import MAX_TOKEN, Credential
from exequatur.settings import Settings
from exequatur.statements.encoding import strict_json
from exequatur.statements.jws import parse
from exequatur.statements.models import Grant, Permit
from exequatur.statements.verification import audience

PARAMETERS = (
    "grant_type",
    "subject_token",
    "subject_token_type",
    "actor_token",
    "actor_token_type",
    "requested_token_type",
    "authorization_details",
    "audience",
    "resource",
    "scope",
)
_MOST = 30
Details = Annotated[WorkflowDetails | MessageDetails, Field(discriminator="type")]
_DETAILS: TypeAdapter[list[Details]] = TypeAdapter(list[Details])


@dataclass(frozen=True)
class Exchange:
    """What is asked for.

    Args:
        subject: The credential of the one on whose behalf.
        actor: The credential of the one who acts.
        details: What the grant or permit is for.
    """

    subject: Credential
    actor: Credential | None
    details: WorkflowDetails | MessageDetails


def read_exchange(body: bytes, settings: Settings) -> Exchange:
    """Read the form of a token exchange.

    Args:
        body: Form-encoded.
        settings: Trust domain and cluster.

    Raises:
        Refused: H12, H13.
    """
    given = _parameters(body)
    if given.get("grant_type") != EXCHANGE:  # [H12]
        raise Refused(400, "unsupported_grant_type", f"grant_type must be {EXCHANGE}")
    subject = _credential(given, "subject")
    if subject is None:
        raise invalid("subject_token is missing")
    details = _details(given.get("authorization_details"))
    issued = GRANT_TYPE if isinstance(details, WorkflowDetails) else PERMIT_TYPE
    if given.get("requested_token_type", issued) != issued:  # [H13]
        raise invalid(f"requested_token_type must be {issued} for {details.type}")
    site = audience(settings.trust_domain, settings.cluster, details.namespace)
    for name in ("audience", "resource"):
        if given.get(name, site) != site:  # [H13]
            raise Refused(400, "invalid_target", f"{name}: this authority issues for {site} only")
    if given.get("scope"):  # [H12]
        raise invalid("scope: there are no scopes here; say in authorization_details what it is for")
    return Exchange(subject, _credential(given, "actor"), details)


def _parameters(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=_MOST
        )
    except ValueError:
        raise invalid("The body is not form-encoded") from None
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in PARAMETERS:  # [H12]
            raise invalid(f"The parameter {name[:60]!a} is not known; there are {', '.join(PARAMETERS)}")
        if name in given:  # [H12]
            raise invalid(f"The parameter {name} comes twice")
        given[name] = value
    return given


def _credential(given: dict[str, str], whose: str) -> Credential | None:
    token, type = given.get(f"{whose}_token"), given.get(f"{whose}_token_type")
    if (token is None) != (type is None):
        raise invalid(f"{whose}_token and {whose}_token_type go together")
    if token is None or type is None:
        return None
    if not token or len(token) > MAX_TOKEN:
        raise invalid(f"{whose}_token has {len(token)} characters; 1 to {MAX_TOKEN} are taken")
    return Credential(token, type)


def _details(text: str | None) -> WorkflowDetails | MessageDetails:
    if text is None:
        raise invalid("authorization_details is missing; it says what the grant or permit is for")
    try:
        found = _DETAILS.validate_json(text) if strict_json(text) else []
    except ValidationError as err:
        first = err.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))[:200]
        raise invalid(f"authorization_details: {where}: {first['msg']}") from None
    except ValueError:
        raise invalid("authorization_details is not JSON") from None
    if len(found) != 1:  # [H13]
        raise invalid(f"authorization_details has {len(found)} entries; one thing is authorized at a time")
    return found[0]


async def issue(authority: Authority, exchange: Exchange, caller: Identified) -> Exchanged:
    """Issue what was asked for.

    Raises:
        AuthorizationDenied: See :class:`exequatur.gate.issuing.Authority`.
        AuthorizationUnavailable: See there.
    """
    details = exchange.details
    fields = details.model_dump(exclude={"type"})
    if isinstance(details, WorkflowDetails):
        text = await authority.issue_grant(GrantOrder(principal=caller.principal, acting=caller.acting, **fields))
        grant = parse(text, Grant).claims
        return _exchanged(text, GRANT_TYPE, grant.exp - grant.iat)
    text = await authority.issue_permit(PermitOrder(principal=caller.principal, acting=caller.acting, **fields))
    permit = parse(text, Permit).claims
    return _exchanged(text, PERMIT_TYPE, permit.exp - permit.iat)


def _exchanged(text: str, type: str, lasts: float) -> Exchanged:
    return Exchanged(access_token=text, issued_token_type=type, expires_in=int(lasts))
