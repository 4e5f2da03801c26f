"""Who is asked to agree to what, and how to answer: list, approve and reject what runs wait for.

A run that waits for people keeps the gate's challenges in its memo. Whoever can write a workflow can write a memo, so
everything in it is hostile until it is verified. Rules, numbered as the code marks them (O are those of
:mod:`exequatur.statements.approvals`):

P1  Of a memo no more than ``MAX_MEMO_BYTES`` are decoded, and no more than ``MAX_CHALLENGES`` of its entries are read.
P2  A challenge is listed only if it verifies from its bytes, for this trust domain and cluster, and has not ended (O1
    to O4).
P3  It is listed only where it belongs: the namespace, id and type of the workflow are those that it names.
P4  Of the answers in a run's history only those that verify are shown (O5 to O9), and at most ``MAX_EVENTS`` events are
    looked at.
P5  An id that is shorter than ``SHORTEST_ID``, or that several challenges begin with, names none of them.

The answer is signed by the authority and sent to the run as a signal; whether it counts is decided there, from its
bytes alone.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from temporalio.api.common.v1 import WorkflowExecution as Execution
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryReverseRequest
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from exequatur.errors import ChallengeError, StatementError
from exequatur.gate.issuing import ApprovalOrder, Authority
from exequatur.identity.credential import Credential
from exequatur.identity.principal import UNAUTHENTICATED, Principal
from exequatur.statements.approvals import (
    APPROVAL_SIGNAL,
    CHALLENGES_MEMO,
    SKEW,
    satisfied,
    verify_approval,
    verify_challenge,
)
from exequatur.statements.jws import Token, parse
from exequatur.statements.models import Approval, Challenge
from exequatur.statements.trust import TrustStore
from exequatur.statements.verification import audience

if TYPE_CHECKING:  # those who have none need not load it
    from exequatur.plugin import AuthorizationPlugin

__all__ = ["Listing", "OpenChallenge", "Trusted", "approve", "list_challenges", "reject"]

MAX_MEMO_BYTES = 1024 * 1024
"""More than all the challenges that a run may have open take."""
MAX_CHALLENGES = 32
"""Of one run; the gate opens no more."""
MAX_RUNS = 10_000
"""Running workflows that are looked at; a query narrows them."""
MAX_EVENTS = 5_000
"""Of one history, the newest first."""
MAX_ANSWER_BYTES = 64 * 1024
"""Of one signal; an approval is a few KiB, and encryption adds to it."""
SHORTEST_ID = 8
"""Characters. Nobody finds another request whose digest begins with them while a person reads."""
_PAGE = 100
_CLOCKS = 10 * SKEW
"""Seconds that the server's clock may be apart from that of the worker that issued a challenge."""


@dataclass(frozen=True)
class Trusted:
    """What verifies challenges where there is no plugin.

    Args:
        trust: The anchors.
        trust_domain: As the workers have it.
        cluster: As the workers have it.
        clock: Gives the seconds since 1970.
    """

    trust: TrustStore
    trust_domain: str
    cluster: str
    clock: Callable[[], float] = time.time

    @property
    def site(self) -> str:
        return f"{self.trust_domain}/{self.cluster}"


@dataclass(frozen=True)
class OpenChallenge:
    """A verified challenge that a running workflow waits with. Its texts are as they were signed: escape them.

    Args:
        challenge: What the gate asks.
        credential: Of the worker that signed it.
        run_id: The run that waits; after a reset another than the one that asked.
        answers: The verified answers that the run has received, in their order.
        complete: Whether all of the run's newer history was looked at for them.
    """

    challenge: Token[Challenge]
    credential: str
    run_id: str
    answers: tuple[Approval, ...] = ()
    complete: bool = True

    @property
    def id(self) -> str:
        """The ``jti`` of the request that waits."""
        return self.claims.request

    @property
    def claims(self) -> Challenge:
        return self.challenge.claims

    def with_answer(self, answer: Approval) -> OpenChallenge:
        """The challenge with one answer more."""
        return replace(self, answers=(*self.answers, answer))

    def agreed(self, group: str, now: float) -> tuple[str, ...]:
        """The people of a group who have agreed and still count.

        Args:
            group: One of those that are asked.
            now: Seconds since 1970.
        """
        needs = tuple(need for need in self.claims.needs if need.group == group)
        return satisfied(self.claims.model_copy(update={"needs": needs}), self.answers, now=now)[1]


@dataclass(frozen=True)
class Listing:
    """What people are asked.

    Args:
        challenges: Oldest first.
        refused: What stands in memos and is not listed, a sentence each. Its texts are not to be trusted.
        complete: Whether all running workflows were looked at.
    """

    challenges: tuple[OpenChallenge, ...]
    refused: tuple[str, ...] = ()
    complete: bool = True


async def list_challenges(
    client: Client, by: AuthorizationPlugin | Trusted, *, query: str | None = None, workflow_id: str | None = None
) -> Listing:
    """List what running workflows wait for people to agree to.

    Args:
        client: Has the workers' data converter, where they have one. It needs no plugin.
        by: Whose trust anchors count.
        query: A Temporal visibility query that narrows the running workflows that are looked at.
        workflow_id: Look at this workflow only; what it waits for is seen at once, where a list may lag behind.

    Returns:
        The verified challenges with the answers that were given so far.

    Raises:
        ChallengeError: The server refuses the query, cannot be reached, or has no such workflow.
    """
    if not isinstance(by, Trusted):
        await by.gate.learn_keys()
    trusted = _trusted(by)
    challenges: list[OpenChallenge] = []
    refused: list[str] = []
    looked = 0
    complete = True
    try:
        async for execution in _running(client, query, workflow_id):
            looked += 1
            if looked > MAX_RUNS:
                complete = False
                break
            found = await _challenges_of(execution, trusted, refused)
            challenges += await _answered(client, execution, found, trusted)
    except RPCError as error:
        if workflow_id is not None and error.status is RPCStatusCode.NOT_FOUND:
            raise ChallengeError(f"The server has no workflow {workflow_id}") from error
        raise ChallengeError(f"The server does not say what is waited for: {error}") from error
    challenges.sort(key=lambda each: (each.claims.iat, each.id))
    return Listing(tuple(challenges), tuple(refused), complete)


async def approve(
    client: Client,
    plugin: AuthorizationPlugin,
    challenge: str | OpenChallenge,
    *,
    principal: Principal | Credential | str,
    reason: str | None = None,
    workflow_id: str | None = None,
) -> Approval:
    """Agree to what a run waits for.

    The authority signs this if the principal is in a group that is asked and policies permit it; the run then counts
    it, and schedules the activity again once as many people agree as the policy asks for.

    Args:
        client: To the server that the run is on, as for :func:`list_challenges`.
        plugin: Its authority signs.
        challenge: As :func:`list_challenges` gave it; or its id, or what only this id begins with.
        principal: Who agrees, or ``Type::"id"``: whoever calls this vouches for it. Where the authority is elsewhere,
            a credential of that person proves it.
        reason: A sentence for those who look later.
        workflow_id: Where to look for the id; all running workflows if it is left out.

    Returns:
        What was signed and sent.

    Raises:
        ChallengeError: Nothing is open under this id, or the run has ended.
        ValueError: The principal has another form.
        AuthorizationDenied: The principal may not agree to this.
        AuthorizationUnavailable: It cannot be decided or recorded now.
    """
    return await _decide(client, plugin, challenge, "approve", principal, reason, workflow_id)


async def reject(
    client: Client,
    plugin: AuthorizationPlugin,
    challenge: str | OpenChallenge,
    *,
    principal: Principal | Credential | str,
    reason: str | None = None,
    workflow_id: str | None = None,
) -> Approval:
    """Refuse what a run waits for: the activity ends in ``AuthorizationDenied``, whoever else agrees.

    Args:
        client: As for :func:`approve`, as are the others.
        plugin: See there.
        challenge: See there.
        principal: Who refuses.
        reason: See there; the run's failure tells it.
        workflow_id: See there.

    Returns:
        What was signed and sent.

    Raises:
        ChallengeError: As for :func:`approve`, as are the others.
        ValueError: See there.
        AuthorizationDenied: See there.
        AuthorizationUnavailable: See there.
    """
    return await _decide(client, plugin, challenge, "reject", principal, reason, workflow_id)


def named(listing: Listing, prefix: str) -> OpenChallenge:
    """The one challenge whose id begins so.

    Raises:
        ChallengeError: P5, or there is none.
    """
    if len(prefix) < SHORTEST_ID:  # [P5]
        raise ChallengeError(f"{prefix!r} is too short for an id; give at least {SHORTEST_ID} characters of it")
    found = [each for each in listing.challenges if each.id.startswith(prefix)]
    if len(found) > 1:  # [P5]
        raise ChallengeError(f"{len(found)} ids begin with {prefix}; give more characters, or the workflow's id")
    if not found:
        raise ChallengeError(
            f"Nothing waits under the id {prefix}: it was answered, it ended, or the server does not show it yet"
        )
    return found[0]


async def _decide(
    client: Client,
    plugin: AuthorizationPlugin,
    challenge: str | OpenChallenge,
    verdict: Literal["approve", "reject"],
    principal: Principal | Credential | str,
    reason: str | None,
    workflow_id: str | None,
) -> Approval:
    who = Principal.parse(principal) if isinstance(principal, str) else principal
    credential, who = (who, UNAUTHENTICATED) if isinstance(who, Credential) else (None, who)
    if isinstance(challenge, str):
        if len(challenge) < SHORTEST_ID:
            named(Listing(()), challenge)
        challenge = named(await list_challenges(client, plugin, workflow_id=workflow_id), challenge)
    await plugin._serving.refresh()
    return await answer(client, plugin._authority, who, challenge, verdict, reason, credential=credential)


async def answer(
    client: Client,
    authority: Authority,
    who: Principal,
    challenge: OpenChallenge,
    verdict: Literal["approve", "reject"],
    reason: str | None,
    *,
    credential: Credential | None = None,
) -> Approval:
    """Have an authority sign an answer, and send it to the run; for those who have no plugin.

    Args:
        client: As for :func:`approve`.
        authority: Signs, once its policies permit it.
        who: Who answers.
        challenge: As :func:`list_challenges` gave it.
        verdict: Whether it is agreed to.
        reason: As for :func:`approve`.
        credential: Of who answers, where the authority is elsewhere.

    Raises:
        ChallengeError: The run has ended.
        AuthorizationDenied: See :func:`approve`.
        AuthorizationUnavailable: See there.
    """
    order = ApprovalOrder(who, challenge.challenge.text, challenge.credential, verdict, reason, credential=credential)
    text = await authority.issue_approval(order)
    run = client.get_workflow_handle(challenge.claims.workflow_id, run_id=challenge.run_id)
    try:
        await run.signal(APPROVAL_SIGNAL, text)
    except RPCError as error:
        why = "the run has ended" if error.status is RPCStatusCode.NOT_FOUND else str(error)
        raise ChallengeError(f"The answer was signed and could not be sent to {run.id}: {why}") from error
    return parse(text, Approval).claims


def _trusted(by: AuthorizationPlugin | Trusted) -> Trusted:
    if isinstance(by, Trusted):
        return by
    gate = by.gate
    return Trusted(gate.trust, gate.settings.trust_domain, gate.settings.cluster, gate.clock)


async def _running(client: Client, query: str | None, workflow_id: str | None) -> AsyncIterator[WorkflowExecution]:
    if workflow_id is not None:
        execution = await client.get_workflow_handle(workflow_id).describe()
        if execution.status is WorkflowExecutionStatus.RUNNING:
            yield execution
        return
    running = 'ExecutionStatus = "Running"'
    async for listed in client.list_workflows(f"{running} AND ({query})" if query else running, page_size=_PAGE):
        yield listed


async def _challenges_of(execution: WorkflowExecution, trusted: Trusted, refused: list[str]) -> list[OpenChallenge]:
    """The challenges in a memo that verify; a sentence about each of the others is added to ``refused``."""
    payload = execution.raw_info.memo.fields.get(CHALLENGES_MEMO)
    if payload is None:
        return []
    if len(payload.data) > MAX_MEMO_BYTES:  # [P1]
        refused.append(f"{execution.id}: its memo has {len(payload.data)} bytes of challenges")
        return []
    try:
        entries = await execution.memo_value(CHALLENGES_MEMO)
    except Exception as error:  # whatever the codec raises about bytes that anybody wrote
        refused.append(f"{execution.id}: its memo cannot be decoded ({type(error).__name__}); was it encrypted?")
        return []
    if entries is None:  # what it waited for was answered
        return []
    if not isinstance(entries, list):
        refused.append(f"{execution.id}: its memo has no list of challenges")
        return []
    if len(entries) > MAX_CHALLENGES:
        refused.append(f"{execution.id}: its memo has {len(entries)} challenges; the first {MAX_CHALLENGES} are read")
    found: dict[str, OpenChallenge] = {}
    for entry in entries[:MAX_CHALLENGES]:  # P1
        try:
            each = _verified(entry, execution, trusted)
        except StatementError as error:
            refused.append(f"{execution.id}: {error}")
        else:
            found[each.challenge.digest] = each
    return list(found.values())


def _verified(entry: Any, execution: WorkflowExecution, trusted: Trusted) -> OpenChallenge:
    """A memo's entry as a challenge.

    Raises:
        StatementError: P2, P3.
    """
    text, credential = (entry.get("challenge"), entry.get("credential")) if isinstance(entry, Mapping) else (None, None)
    if not isinstance(text, str) or not isinstance(credential, str):
        raise StatementError("P2", "An entry of its memo is not a challenge with a credential")
    token = verify_challenge(text, credential, trusted.trust, site=trusted.site, now=trusted.clock())  # P2
    claims = token.claims
    if (claims.namespace, claims.workflow_id, claims.workflow_type) != (
        execution.namespace,
        execution.id,
        execution.workflow_type,
    ):
        raise StatementError("P3", "Its memo holds the challenge of another workflow")
    return OpenChallenge(token, credential, execution.run_id)


async def _answered(
    client: Client, execution: WorkflowExecution, challenges: Sequence[OpenChallenge], trusted: Trusted
) -> list[OpenChallenge]:
    """The challenges with the answers that their run's history holds."""
    if not challenges:
        return []
    by_digest = {each.challenge.digest: each.challenge for each in challenges}
    answers: dict[str, list[Approval]] = {digest: [] for digest in by_digest}
    since = min(each.claims.iat for each in challenges) - _CLOCKS
    complete = True
    looked = 0
    try:
        async for event in _newest_first(client, execution):
            looked += 1
            if looked > MAX_EVENTS:  # P4
                complete = False
                break
            if event.event_time.ToNanoseconds() / 1e9 < since:
                break
            answer = await _answer(event, execution, by_digest, trusted)
            if answer is not None and answer not in answers[answer.challenge]:
                answers[answer.challenge].insert(0, answer)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return []  # the run has ended meanwhile
        raise
    return [replace(each, answers=tuple(answers[each.challenge.digest]), complete=complete) for each in challenges]


async def _answer(
    event: HistoryEvent, execution: WorkflowExecution, challenges: Mapping[str, Token[Challenge]], trusted: Trusted
) -> Approval | None:
    """The verified answer that an event brings, if it brings one."""
    if event.event_type != EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
        return None
    signal = event.workflow_execution_signaled_event_attributes
    if signal.signal_name != APPROVAL_SIGNAL or len(signal.input.payloads) != 1:
        return None
    if len(signal.input.payloads[0].data) > MAX_ANSWER_BYTES:
        return None
    aud = audience(trusted.trust_domain, trusted.cluster, execution.namespace)
    try:
        [text] = await execution.data_converter.decode(signal.input.payloads)
        asked = challenges[parse(text, Approval).claims.challenge]
        return verify_approval(text, asked, trusted.trust, aud=aud).claims  # P4
    except Exception:  # whatever it is; anybody may send a run anything, and the run ignores it, too
        return None


async def _newest_first(client: Client, execution: WorkflowExecution) -> AsyncIterator[HistoryEvent]:
    token = b""
    while True:
        page = await client.workflow_service.get_workflow_execution_history_reverse(
            GetWorkflowExecutionHistoryReverseRequest(
                namespace=execution.namespace,
                execution=Execution(workflow_id=execution.id, run_id=execution.run_id),
                maximum_page_size=_PAGE * 5,
                next_page_token=token,
            ),
            retry=True,
        )
        for event in page.history.events:
            yield event
        token = page.next_page_token
        if not token:
            return
