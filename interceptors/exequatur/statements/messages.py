"""May this message reach a run? A client's permit, or the word of the run that sent it, decided from bytes alone.

A client's signal, query or update comes with a *permit*, which the authority signed after Cedar allowed it. A signal
from another run comes with that run's chain and a *message*, which its worker signed with Cedar's answer in it. Pure:
no clock, no file, no network, so that a replay arrives at the same verdict. Rules, numbered as the code marks them (V,
T, C, G and D are those of :mod:`~exequatur.statements.jws`, :mod:`~exequatur.statements.trust` and
:mod:`~exequatur.statements.verification`):

M11  There is one permit and nothing else; or a grant, delegations and credentials, and a message last.
M12  It is for this trust domain, cluster and namespace.
M13  It is for this kind of message.
M14  It is for this workflow.
M15  It is for a message of this name.
M16  It is for these arguments.
M17  It has not ended.
M18  A permit is signed by an anchor for permits.
M19  The chain of the sending run verifies (C, G1 to G3, D1 to D6).
M20  The message is signed by a worker in the role ``request``, in the sender's namespace (C1 to C7).
M21  It was sent by the run that the chain is for, before the chain ended.
M22  Cedar allowed the sender to send it.
M23  If it names a run, that is this one.

The rules that need no key come first. So a key that is not known (T1) is met only by what is otherwise in order, and
what has ended is refused by everybody in the same way, whatever keys they know.

M23 stands apart (:func:`meant_for_another_run`): a run changes its id when it is reset, and a replay knows only the
new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exequatur.errors import StatementError
from exequatur.statements.jws import Token, parse, type_of
from exequatur.statements.models import (
    Delegation,
    Grant,
    Message,
    MessageKind,
    Permit,
    WorkloadCredential,
)
from exequatur.statements.trust import TrustStore
from exequatur.statements.verification import Chain, Credentials, Scope, verify_chain


@dataclass(frozen=True)
class Arrived:
    """A message, as a run received it.

    Args:
        kind: What it is.
        target: Id of the workflow that received it.
        name: Of the signal, query or update.
        args: Digest of the arguments' payloads.
        now: When it came, in seconds since 1970.
    """

    kind: MessageKind
    target: str
    name: str
    args: str
    now: float


@dataclass(frozen=True)
class Admitted:
    """Why a message may reach a run.

    Args:
        token: The permit, or the message of another run.
        chain: Of the sending run.
    """

    token: Token[Permit] | Token[Message]
    chain: Chain | None = None

    @property
    def principal(self) -> str:
        """On whose behalf it was sent."""
        claims = self.token.claims
        return claims.sub if isinstance(claims, Permit) else self.chain.grant.claims.sub if self.chain else ""

    @property
    def sender(self) -> str | None:
        """Id of the workflow that sent it."""
        claims = self.token.claims
        return claims.workflow_id if isinstance(claims, Message) else None


def _check_binding(claims: Permit | Message, aud: str, arrived: Arrived) -> None:
    what = type(claims).__name__.lower()
    if claims.aud != aud:  # [M12]
        raise StatementError("M12", f"The {what} is for {claims.aud}, not for {aud}")
    if claims.kind != arrived.kind:  # [M13]
        raise StatementError("M13", f"The {what} is for kind {claims.kind}, not for {arrived.kind}")
    if claims.target != arrived.target:  # [M14]
        raise StatementError("M14", f"The {what} is for {claims.target}, not for {arrived.target}")
    if claims.name != arrived.name:  # [M15]
        raise StatementError("M15", f"The {what} is for the name {claims.name}")
    if claims.args != arrived.args:  # [M16]
        raise StatementError("M16", f"The arguments are not those that the {what} is for")
    if arrived.now >= claims.exp:  # [M17]
        raise StatementError("M17", f"The {what} ended {arrived.now - claims.exp:.0f} s before it came; send it again")


def verify_message(tokens: Sequence[str], trust: TrustStore, *, aud: str, arrived: Arrived) -> Admitted:
    """Verify what a message's header holds.

    Args:
        tokens: Compact tokens in the header's order.
        trust: The anchors.
        aud: Trust domain, cluster and namespace of the receiving run.
        arrived: What came. M23 is left to the caller.

    Raises:
        UnknownKeyError: The trust store does not know a key: not a verdict.
        StatementError: V, T, C, G1 to G3, D1 to D6, M11 to M22.
    """
    kinds = [type_of(token) for token in tokens]
    if kinds == [Permit.typ]:
        permit = parse(tokens[0], Permit)
        _check_binding(permit.claims, aud, arrived)
        trust.verify(permit)  # [M18]
        return Admitted(permit)
    between = {Delegation.typ, WorkloadCredential.typ}
    if kinds[0] != Grant.typ or kinds[-1] != Message.typ or not set(kinds[1:-1]) <= between:  # [M11]
        raise StatementError("M11", "A message must come with one permit, or with its sender's grant and a message")
    token = parse(tokens[-1], Message)
    claims = token.claims
    _check_binding(claims, aud, arrived)
    credentials = Credentials(trust)
    for text, kind in zip(tokens, kinds, strict=True):
        if kind == WorkloadCredential.typ:
            credentials.add(text)
    delegations = [text for text, kind in zip(tokens, kinds, strict=True) if kind == Delegation.typ]
    chain = verify_chain(tokens[0], delegations, credentials, trust, aud=aud)  # [M19]
    credentials.verify(token, "request", Scope(chain.site, namespace=chain.namespace))  # [M20]
    if claims.grant != chain.leaf.digest or not chain.authorization.is_for(claims.workflow_id):  # [M21]
        raise StatementError("M21", "The message was sent by another run than its grant or delegation is for")
    if claims.iat >= chain.expires:  # [M21]
        raise StatementError("M21", "The message was sent after the sender's grant had ended")
    if claims.decision != "allow":  # [M22]
        raise StatementError("M22", f"Its sender was not allowed to send it: {claims.reason or 'no reason given'}")
    return Admitted(token, chain)


def meant_for_another_run(admitted: Admitted, *run_ids: str) -> StatementError | None:
    """What is wrong with the run that a permit or message names (M23), or ``None``.

    Args:
        admitted: What was verified.
        run_ids: Those that the receiving run is known by.
    """
    claims = admitted.token.claims
    named = claims.run_id if isinstance(claims, Permit) else claims.target_run_id
    if named is None or named in run_ids:
        return None
    return StatementError("M23", f"The {type(claims).__name__.lower()} is for run {named}")
