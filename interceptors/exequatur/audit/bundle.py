"""What one run's evidence document holds besides records: its statements, and the proofs that tie them to checkpoints.

So a document that ``exequatur evidence export --history`` wrote stands by itself: whoever has a trust file verifies it
without the server, the history or the store.

Rules, numbered as the code marks them:

W0  The proofs are of a known version, with exactly its members.
W1  Credentials verify (C1), and every statement is signed with the key of one that gives its role (C2 to C7).
W2  Grant and delegations verify (G1 to G3, D1 to D6).
W3  Each event that is named is in the tree of the largest checkpoint, and each checkpoint in that of the next.
W4  The grant is for the workflow that the document names, requests and seals stand on it, receipts are for those.
W5  A checkpoint is of this run and signed by a notary that the reader trusts; as many witnesses as the reader demands
    have cosigned the largest.
W6  A further grant renews one that the run stood on before (Z1 to Z5).
W7  Challenges verify and stand on what the run stood on; approvals verify, and are for one of those challenges.
W8  What the run sent elsewhere stands on what it stood on (W1, W4). A permit of a message that is not by an authority,
    or not for this workflow, does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from typing import Any, Literal

from pydantic import ValidationError

from exequatur.audit.activities import activities_of
from exequatur.audit.carried import carried_by, count_permits
from exequatur.audit.history import RunHistory
from exequatur.audit.leaves import leaf, tree_of
from exequatur.audit.trust import AuditTrust
from exequatur.errors import ConfigurationError, EvidenceError, StatementError
from exequatur.gate.wire import read_activity_header, read_start_header
from exequatur.lineage import note as notes_of
from exequatur.lineage.checkpoint import Checkpoint, claimed, run_origin, verify_checkpoint
from exequatur.lineage.merkle import leaf_hash, verify_consistency, verify_inclusion
from exequatur.lineage.note import VerifierKey
from exequatur.statements.approvals import verify_approval, verify_challenge_among
from exequatur.statements.encoding import from_base64url, to_base64url
from exequatur.statements.jws import Token, parse, type_of
from exequatur.statements.models import (
    Approval,
    Challenge,
    Delegation,
    Grant,
    HeartbeatMark,
    Message,
    NexusCall,
    Part,
    Permit,
    Receipt,
    Request,
    Role,
    Seal,
    WorkloadCredential,
)
from exequatur.statements.packing import unpack
from exequatur.statements.renewal import verify_renewal
from exequatur.statements.verification import Chain, Credentials, Scope, verify_chain

VERSION: Literal["exequatur proofs v1"] = "exequatur proofs v1"
_ROLES: dict[str, tuple[type[Any], Role]] = {
    Request.typ: (Request, "request"),
    Receipt.typ: (Receipt, "receipt"),
    Seal.typ: (Seal, "seal"),
    Delegation.typ: (Delegation, "delegate"),
    HeartbeatMark.typ: (HeartbeatMark, "receipt"),
    Message.typ: (Message, "request"),
    NexusCall.typ: (NexusCall, "request"),
}


class Inclusion(Part):
    """An event and its way up to the root of the largest checkpoint (RFC 9162, section 2.1.3)."""

    index: int
    leaf: str
    hashes: tuple[str, ...]


class Consistency(Part):
    """Two checkpoints of a run and the proof that the larger holds the smaller (RFC 9162, section 2.1.4)."""

    earlier: int
    later: int
    hashes: tuple[str, ...]


class Proofs(Part):
    """The member ``proofs`` of an evidence document.

    Args:
        version: :data:`VERSION`.
        api: Which version of Temporal's API the leaves were written with.
        workflow_id: The run's workflow id.
        run_id: Its run id.
        statements: Compact tokens of the history: grant, delegations, credentials, requests, receipts.
        inclusion: Of events.
        consistency: Of each checkpoint with the next larger one.
    """

    version: Literal["exequatur proofs v1"] = VERSION
    api: str
    workflow_id: str
    run_id: str
    statements: tuple[str, ...]
    inclusion: tuple[Inclusion, ...] = ()
    consistency: tuple[Consistency, ...] = ()


@dataclass(frozen=True)
class Verified:
    """What a document proves.

    Args:
        principal: On whose behalf the run acted.
        statements: How many statements verify.
        events: Ids of the events that a checkpoint covers.
        sizes: Of the checkpoints.
    """

    principal: str
    statements: int
    events: tuple[int, ...]
    sizes: tuple[int, ...]


def origin_of(history: RunHistory, run_id: str | None = None) -> str | None:
    """The name of a run's log, from the grant that it says it was started with.

    Args:
        history: The run.
        run_id: Another run of the same workflow.
    """
    try:
        tokens = read_start_header(dict(history.started.header.fields))
        aud = parse(tokens[0], Grant).claims.aud if tokens else None
    except StatementError:
        return None
    if aud is None:
        return None
    site, _, namespace = aud.rpartition("/")
    return run_origin(site, namespace, history.workflow_id, run_id or history.run_id)


def make_proofs(
    recorded: RunHistory, plain: RunHistory, notes: Sequence[str], event_ids: Iterable[int] | None = None
) -> Proofs:
    """Make the proofs of a run.

    Args:
        recorded: As Temporal has it.
        plain: The same with payloads decoded.
        notes: Its checkpoints, of any number.
        event_ids: The events to prove; without it the start, the close, and where activities begin and end.

    Raises:
        EvidenceError: A checkpoint is not of this history, or an event is not covered by any.
    """
    heads = sorted({claimed(note) for note in notes}, key=lambda head: head.size)
    inclusion, consistency = [], []
    if heads:
        largest = heads[-1].size
        tree = tree_of(recorded.events[:largest])
        for head in heads:
            if head.size > len(tree) or tree.root(head.size) != head.root:
                raise EvidenceError(f"the checkpoint at {head.size} events is not of this history")
        for event_id in sorted(set(event_ids if event_ids is not None else _telling(plain, largest))):
            if not 1 <= event_id <= largest:
                raise EvidenceError(f"no checkpoint covers event {event_id}; the largest covers {largest}")
            hashes = tuple(map(to_base64url, tree.inclusion_proof(event_id - 1, largest)))
            text = leaf(recorded.events[event_id - 1]).decode()
            inclusion.append(Inclusion(index=event_id - 1, leaf=text, hashes=hashes))
        for earlier, later in pairwise(heads):
            hashes = tuple(map(to_base64url, tree.consistency_proof(earlier.size, later.size)))
            consistency.append(Consistency(earlier=earlier.size, later=later.size, hashes=hashes))
    return Proofs(
        api=f"temporalio {version('temporalio')}",
        workflow_id=recorded.workflow_id,
        run_id=recorded.run_id,
        statements=tuple(dict.fromkeys(_statements(plain))),
        inclusion=tuple(inclusion),
        consistency=tuple(consistency),
    )


def _telling(history: RunHistory, count: int) -> Iterator[int]:
    """The events that an auditor asks for."""
    yield from (1, count)
    for activity in activities_of(history):
        for event in (activity.event, activity.ended):
            if event is not None and event.event_id <= count:
                yield event.event_id
    yield from (event_id for event_id, tokens in carried_by(history) if tokens and event_id <= count)


def _statements(history: RunHistory) -> Iterator[str]:
    """Every statement of a history that can be read."""
    try:
        yield from read_start_header(dict(history.started.header.fields)) or ()
        for activity in activities_of(history):
            yield from read_activity_header(activity.headers) or ()
            if activity.packed_receipt is not None:
                yield from unpack(activity.packed_receipt)
            if denial := activity.denial():
                yield from denial[::-1]
                more = (activity.details.get(name) for name in ("renewal", "challenge"))
                yield from (text for text in more if isinstance(text, str))
        for _, tokens in carried_by(history):
            yield from tokens
    except StatementError as error:
        raise EvidenceError(f"the history holds a statement that cannot be read: {error}") from error


def verify_proofs(document: Any, notes: Sequence[str], seals: Iterable[str], trust: AuditTrust) -> Verified:
    """Verify what a document says of one run, offline.

    Args:
        document: Its member ``proofs``.
        notes: Its checkpoints.
        seals: Those of the run among its records, each with its credential behind a ``~``.
        trust: Whom the reader believes. What the document says of trust is not looked at.

    Raises:
        EvidenceError: W0 to W8; the first that does not hold is named.
    """
    try:
        proofs = Proofs.model_validate(_tuples(document))
    except ValidationError as error:
        field = ".".join(map(str, error.errors(include_input=False)[0]["loc"])) or "proofs"
        raise _refused("W0", f"its proofs have a missing, unknown or ill-typed member: {field}") from None  # [W0]
    tokens = [*proofs.statements, *(part for text in seals for part in text.split("~"))]
    try:
        chain, count = _verify_statements(tokens, proofs, trust)
    except StatementError as error:
        raise EvidenceError(str(error)) from error
    sizes = _verify_checkpoints(proofs, notes, chain, trust)
    return Verified(
        chain.grant.claims.sub, count, tuple(each.index + 1 for each in proofs.inclusion), tuple(sorted(sizes))
    )


def _tuples(value: Any) -> Any:
    """JSON arrays as the models, which are strict, take them."""
    if isinstance(value, list | tuple):
        return tuple(map(_tuples, value))
    return {name: _tuples(member) for name, member in value.items()} if isinstance(value, Mapping) else value


def _verify_statements(tokens: Sequence[str], proofs: Proofs, trust: AuditTrust) -> tuple[Chain, int]:
    """W1, W2 and W4."""
    by_type: dict[str, list[str]] = {}
    for text in dict.fromkeys(tokens):
        by_type.setdefault(type_of(text), []).append(text)
    credentials = Credentials(trust.anchors)
    for text in by_type.pop(WorkloadCredential.typ, []):
        credentials.add(text)  # [W1]
    grants = by_type.pop(Grant.typ, [])
    if not grants:
        raise _refused("W2", "it holds no grant, and a run has one")  # [W2]
    chain = verify_chain(grants[0], by_type.get(Delegation.typ, ()), credentials, trust.anchors, aud=None)  # [W2]
    chains = _renewed(chain, grants[1:], trust)
    scope = Scope(chain.site, namespace=chain.namespace)
    count = len(grants) + _verify_agreements(by_type, chains, credentials, trust)
    count += count_permits(by_type.pop(Permit.typ, ()), chain, proofs.workflow_id, trust.anchors)  # [W8]
    tokens_of: dict[str, list[Any]] = {}
    for typ, texts in by_type.items():
        if typ not in _ROLES:
            raise _refused("W1", f"it holds a {typ}, which is no statement of this version")  # [W1]
        kind, role = _ROLES[typ]
        for text in texts:
            token: Token[Any] = parse(text, kind)
            credentials.verify(token, role, scope)  # [W1]
            tokens_of.setdefault(typ, []).append(token.claims)
            count += 1
    _check_belonging(tokens_of, proofs, chains)
    return chain, count


def _renewed(chain: Chain, grants: Sequence[str], trust: AuditTrust) -> dict[str, Chain]:
    """W6: what the run stood on, by the digest of the leaf."""
    chains = {chain.leaf.digest: chain}
    for text in grants:
        before = chains.get(parse(text, Grant).claims.renews or "")
        if before is None:  # [W6]
            raise _refused("W6", "it holds a second grant, which renews nothing that the run stood on")
        renewed = verify_renewal(text, before, trust.anchors)  # [W6]
        chains[renewed.leaf.digest] = renewed
    return chains


def _verify_agreements(
    by_type: dict[str, list[str]], chains: Mapping[str, Chain], credentials: Credentials, trust: AuditTrust
) -> int:
    """W7: challenges and approvals; they are taken out."""
    chain = next(iter(chains.values()))
    challenges = {
        token.digest: token
        for text in by_type.pop(Challenge.typ, ())
        for token in (verify_challenge_among(text, credentials, site=chain.site),)  # [W7]
    }
    for challenge in challenges.values():
        if challenge.claims.grant not in chains:  # [W7]
            raise _refused("W7", "it holds a challenge under another grant")
    approvals = by_type.pop(Approval.typ, [])
    for text in approvals:
        asked = challenges.get(parse(text, Approval).claims.challenge)
        if asked is None:  # [W7]
            raise _refused("W7", "it holds an approval, and not the challenge that it is for")
        verify_approval(text, asked, trust.anchors, aud=chain.grant.claims.aud)  # [W7]
    return len(challenges) + len(approvals)


def _check_belonging(claims: Mapping[str, Sequence[Any]], proofs: Proofs, chains: Mapping[str, Chain]) -> None:
    """W4."""
    chain = next(iter(chains.values()))
    if not chain.authorization.is_for(proofs.workflow_id):  # [W4]
        named = chain.authorization.workflow_id
        raise _refused("W4", f"its grant is for workflow {named}, not {proofs.workflow_id}")
    own = (each for kind in (Request, Seal, Message, NexusCall) for each in claims.get(kind.typ, ()))
    for each in own:
        if each.workflow_id != proofs.workflow_id or each.grant not in chains:  # [W4]
            raise _refused("W4", f"it holds a statement of workflow {each.workflow_id}, or under another grant")
    asked = {each.jti for each in claims.get(Request.typ, ())}
    for receipt in claims.get(Receipt.typ, ()):
        core = receipt.core
        ours = core is not None and core.workflow_id == proofs.workflow_id and core.grant in chains
        # What the gate refused before it believed a request says so, and names the workflow.
        unbelieved = receipt.request is None and receipt.workflow_id == proofs.workflow_id
        told = core is not None and ours and receipt.request == core.hash()
        if not (unbelieved or told or receipt.request in asked):  # [W4]
            raise _refused("W4", "it holds a receipt for a request that it does not hold")


def notary_of(note: str, trust: AuditTrust) -> VerifierKey | None:
    """The trusted notary whose signature a note names, if there is one.

    Raises:
        EvidenceError: It is no note.
    """
    parsed = notes_of.parse(note)
    return next((key for key in trust.notaries if notes_of.bodies_by(parsed, key)), None)


def verify_note(note: str, trust: AuditTrust, *, demanding: bool = True) -> Checkpoint:
    """Verify a checkpoint as the trust file demands it.

    Args:
        note: The signed note.
        trust: Names notaries, witnesses and how many are demanded.
        demanding: Whether witnesses are demanded of this one.

    Raises:
        EvidenceError: No trusted notary has signed it, or too few witnesses have cosigned.
    """
    notary = notary_of(note, trust)
    if notary is None:
        raise _refused("W5", "a checkpoint is by a notary that the trust file does not name")  # [W5]
    threshold = trust.threshold if demanding else 0
    return verify_checkpoint(note, notary=notary, witnesses=trust.witnesses, threshold=threshold).checkpoint


def _verify_checkpoints(proofs: Proofs, notes: Sequence[str], chain: Chain, trust: AuditTrust) -> set[int]:
    """W3 and W5."""
    origin = run_origin(chain.site, chain.namespace, proofs.workflow_id, proofs.run_id)
    heads: dict[int, Checkpoint] = {}
    mine = [note for note in notes if claimed(note).origin == origin]  # not of another run, or of the namespace
    largest_size = max((claimed(note).size for note in mine), default=0)
    for note in mine:
        head = verify_note(note, trust, demanding=claimed(note).size == largest_size)  # [W5]
        if heads.setdefault(head.size, head) != head:
            raise _refused("W3", f"two checkpoints at {head.size} events contradict each other")  # [W3]
    if not heads:
        if proofs.inclusion or proofs.consistency:
            raise _refused("W3", "it has proofs, and no checkpoint of this run that they could be for")  # [W3]
        return set()
    try:
        largest = heads[max(heads)]
        for each in proofs.inclusion:  # [W3]
            hashes = [from_base64url(text) for text in each.hashes]
            verify_inclusion(leaf_hash(each.leaf.encode()), each.index, largest.size, hashes, largest.root)
        told = {(each.earlier, each.later): each for each in proofs.consistency}
        sizes = sorted(heads)
        for earlier, later in pairwise(sizes):  # [W3]
            proof = told.get((earlier, later))
            if proof is None:
                raise _refused("W3", f"nothing proves that the checkpoint at {later} holds the one at {earlier}")
            hashes = [from_base64url(text) for text in proof.hashes]
            verify_consistency(earlier, heads[earlier].root, later, heads[later].root, hashes)
    except (ValueError, ConfigurationError) as error:
        raise _refused("W3", f"a proof cannot be read: {error}") from None
    return set(heads)


def _refused(rule: str, reason: str) -> EvidenceError:
    return EvidenceError(f"{reason} [{rule}]")
