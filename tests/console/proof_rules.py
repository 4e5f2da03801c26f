"""For each rule that evidence is verified by, evidence that breaks it and nothing that is looked at before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from exequatur.lineage.checkpoint import Checkpoint
from exequatur.lineage.merkle import Tree
from exequatur.lineage.note import COSIGNATURE, VerifierKey
from exequatur.statements.encoding import digest
from exequatur.statements.jws import type_of
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import (
    Approval,
    Challenge,
    Delegation,
    Grant,
    Receipt,
    Request,
    WorkloadCredential,
)
from tests.console.proofs import EVENTS, RUN, Json, Made, replaced, written
from tests.simulator import NOW, bend, claims_of, forge, header_of

Broken = tuple[str, str, bytes, bytes]
"""The rule, how it is broken, the document and the trust file."""

LATER = NOW + 10_000
DAY = 86_400


def broken_rules() -> Iterator[Broken]:
    """At least one for every rule, in the order in which a document is verified."""
    run, child = Made(), Made(delegated=True)
    yield from _records(run)
    yield from _tokens(run)
    yield from _anchors(run)
    yield from _credentials(run)
    yield from _grants(run)
    yield from _delegations(child)
    yield from _renewals(run)
    yield from _agreements(run)
    yield from _belonging(run)
    yield from _checkpoints(run)
    yield from _proofs(run)


def _of(made: Made, kind: Any, number: int = 0) -> str:
    return [each for each in made.statements if type_of(each) == kind.typ][number]


def _with(made: Made, old: str, *new: str) -> bytes:
    """The document with other statements in the place of one, and without records."""
    at = made.statements.index(old)
    statements = [*made.statements[:at], *new, *made.statements[at + 1 :]]
    return written(made.document(statements) | {"logs": []})


def _bent(made: Made, kind: Any, number: int = 0, /, **changes: Any) -> bytes:
    """The document with a statement that its own signer signed with other claims; ``None`` takes one out."""
    old = _of(made, kind, number)
    return _with(made, old, bend(old, made.key_of(old), **changes))


def _records(made: Made) -> Iterator[Broken]:
    base, trust = made.document(), written(made.trust())
    first = ("logs", 0, "records", 0)
    for rule, how, path, value in (
        ("Z6", "another version", ("version",), "exequatur evidence v2"),
        ("Z6", "a member more", ("more",), 1),
        ("Z7", "padding", (*first, "body"), "QQ=="),
        ("Z8", "before 1970", (*first, "at"), -1.0),
        ("Z8", "-0.0", (*first, "at"), -0.0),
        ("Z8", "a position beyond all", (*first, "index"), 2**53),
        ("Z8", "a head before it that stands for no bytes", ("logs", 0, "records", 1, "previous"), "A" * 42 + "B"),
        ("Z9", "another kind", (*first, "kind"), "another"),
        ("Z10", "a first one that is the second", (*first, "index"), 1),
        ("Z10", "a second one that is the first", ("logs", 0, "records", 1, "index"), 0),
        ("W0", "no proofs", ("proofs",), None),
        ("W0", "another version of the proofs", ("proofs", "version"), "exequatur proofs v2"),
        ("W0", "a member more in the proofs", ("proofs", "more"), 1),
        ("W0", "an index that is no integer", ("proofs", "inclusion", 0, "index"), 0.0),
    ):
        *way, last = path
        holder: Any = base
        for step in way:
            holder = holder[step]
        changed = holder | {last: value} if isinstance(holder, dict) else None
        yield rule, how, written(replaced(base, tuple(way), changed)), trust


def _tokens(made: Made) -> Iterator[Broken]:
    trust = written(made.trust())
    request = _of(made, Request)
    header, claims, key = header_of(request), claims_of(request), made.key_of(request)
    text = written(claims)
    other_half = _of(made, Request, 1).rpartition(".")[2]
    for rule, how, new in (
        ("V1", "longer than its kind may be", forge(header, claims | {"knows": ["x" * 30_000]}, key)),
        ("V2", "four segments", f"{request}.AAAA"),
        ("V2", "a header with padding", request.replace(".", "==.", 1)),
        ("V2", "a header that is too long", forge(header | {"kid": "x" * 600}, claims, key)),
        ("V2", "claims with padding", request.replace(".", ".=", 1)),
        ("V2", "a signature with unused bits", request[:-1] + chr(ord(request[-1]) + 1)),
        ("V2", "a letter that is not ASCII", f"{request}é"),
        ("V3", "a header that is no JSON", forge(b"{", claims, key)),
        ("V3", "a header with a key in it", forge(header | {"jwk": {}}, claims, key)),
        ("V3", "a kid that is no thumbprint", forge(header | {"kid": "x"}, claims, key)),
        ("V4", "no algorithm", forge(header | {"alg": "none"}, claims, key)),
        ("V4", "another name of the algorithm", forge(header | {"alg": "Ed25519"}, claims, key)),
        ("V6", "a claim twice", forge(header, text[:-1] + b',"seq":1}', key)),
        ("V6", "a claim more", forge(header, claims | {"more": 1}, key)),
        ("V6", "a claim less", forge(header, {name: claims[name] for name in claims if name != "task_queue"}, key)),
        ("V6", "a restriction that is a list", forge(header, claims | {"restriction": []}, key)),
        ("V6", "a flag that is a number", forge(header, claims | {"local": 1}, key)),
        ("V6", "a time that is a text", forge(header, claims | {"iat": str(claims["iat"])}, key)),
        ("V6", "a time beyond the year 3000", forge(header, claims | {"iat": 32_503_680_001}, key)),
        ("V6", "a count that is a fraction", forge(header, claims | {"seq": 1.0}, key)),
        ("V6", "half a character", forge(header, text[:-1] + b',"activity_id":"\\ud800"}', key)),
        ("V7", "the signature of another statement", f"{request.rpartition('.')[0]}.{other_half}"),
        ("W1", "a statement of another version", forge(header | {"typ": "exequatur-order+jwt"}, claims, key)),
    ):
        yield rule, how, _with(made, request, new), trust


def _anchors(made: Made) -> Iterator[Broken]:
    honest, trust = written(made.document()), made.trust()
    keys = trust["keys"]
    credential, permit = made.scene.authority.credential_key, made.scene.authority.permit_key

    def with_key(typ: str, **changes: Any) -> bytes:
        return written(trust | {"keys": [each | changes if each["typ"] == [typ] else each for each in keys]})

    yield (
        "T1",
        "no key for credentials",
        honest,
        written(trust | {"keys": [each for each in keys if each["kid"] != credential.kid]}),
    )
    swapped = _of(made, WorkloadCredential)
    yield "T2", "a credential by the key for permits", _with(made, swapped, bend(swapped, permit)), written(trust)
    yield "T3", "retired before", honest, with_key(WorkloadCredential.typ, exp=NOW - DAY)
    yield "T3", "not yet valid", honest, with_key(WorkloadCredential.typ, nbf=LATER)
    yield "T4", "of another issuer", honest, with_key(WorkloadCredential.typ, iss="https://other.example.org")
    one, two = trust["witnesses"]
    for how, changed in (
        ("no keys", {"keys": None}),
        ("a kid that is another's", {"keys": [keys[0] | {"kid": keys[1]["kid"]}]}),
        ("a key for two types", {"keys": [keys[0] | {"typ": [Grant.typ, WorkloadCredential.typ]}]}),
        ("a key for requests", {"keys": [keys[0] | {"typ": [Request.typ]}]}),
        ("a key with its private half", {"keys": [keys[0] | {"d": keys[0]["x"]}]}),
        ("a key with a use", {"keys": [keys[0] | {"use": "sig"}]}),
        ("a key of another curve", {"keys": [keys[0] | {"crv": "ed25519"}]}),
        ("an anchor that was changed", {"keys": [*keys, keys[0] | {"nbf": 0}]}),
        ("a retired anchor put back", {"keys": [keys[0] | {"exp": NOW}, *keys]}),
        ("more witnesses demanded than named", {"threshold": 3}),
        ("fewer than none demanded", {"threshold": -1}),
        ("a notary that is none", {"notaries": ["x"]}),
        ("a notary with unused bits", {"notaries": [trust["notaries"][0][:-1] + "="]}),
        ("a notary with a short key", {"notaries": [f"{one.split('+')[0]}+00000000+AQ=="]}),
        ("a witness of another kind", {"witnesses": [f"w+00000000+{'Ag' + 'A' * 42}"]}),
        ("a witness with the id of another", {"witnesses": [one.replace(one.split("+")[1], two.split("+")[1]), two]}),
        ("a witness with a space in its name", {"witnesses": [one.replace("/", "\u2003"), two]}),
    ):
        yield "trust", how, honest, written(trust | changed)
    yield "trust", "too long", honest, b" " * (4 * 1024 * 1024) + written(trust)
    yield "trust", "a member twice", honest, written(trust)[:-1] + b',"keys":[]}'


def _credentials(made: Made) -> Iterator[Broken]:
    trust = written(made.trust())
    for rule, how, changes in (
        ("C2", "for another site", {"aud": "other.example.org/main"}),
        ("C3", "over before the request", {"exp": NOW - 100}),
        ("C3", "not yet begun", {"nbf": LATER}),
        ("C5", "without the role", {"roles": ["receipt", "delegate", "seal"]}),
        ("C6", "in another namespace", {"namespaces": ["other", "defaul[!t]"]}),
        ("C7", "of another worker", {"sub": "spiffe://example.org/worker/another"}),
        ("C4", "for another key", {"cnf": {"jwk": {"x": SigningKey.generate().x}}}),
    ):
        yield rule, f"a credential {how}", _bent(made, WorkloadCredential, 0, **changes), trust
    yield "V7", "a credential by a stranger under a known name", _stolen(made, WorkloadCredential), trust


def _stolen(made: Made, kind: Any) -> bytes:
    token = _of(made, kind)
    return _with(made, token, forge(header_of(token), claims_of(token), made.scene.attacker))


def _grants(made: Made) -> Iterator[Broken]:
    trust, grant = written(made.trust()), _of(made, Grant)
    yield (
        "W2",
        "no grant",
        written(made.document([each for each in made.statements if type_of(each) != Grant.typ]) | {"logs": []}),
        trust,
    )
    yield "V7", "a grant by a stranger under a known name", _stolen(made, Grant), trust
    for rule, how, changes in (
        ("V6", "with a list of attributes", {"attributes": []}),
        ("G2", "for two parts of a place", {"aud": "example.org/default"}),
        ("G2", "for four parts of a place", {"aud": "example.org/main/default/more"}),
        ("G3", "ends before it begins", {"nbf": LATER}),
        ("G3", "has to be started before it was issued", {"start_by": NOW - 100}),
        ("G3", "may be started after its end", {"start_by": LATER}),
    ):
        yield rule, f"a grant {how}", _with(made, grant, bend(grant, made.key_of(grant), **changes)), trust


def _delegations(made: Made) -> Iterator[Broken]:
    trust, leaf = written(made.trust()), _of(made, Delegation)
    [given] = claims_of(leaf)["authorization_details"]

    def handed(**changes: Any) -> Json:
        return {
            "authorization_details": [{name: value for name, value in (given | changes).items() if value is not None}]
        }

    for rule, how, changes in (
        ("D2", "follows another token", {"parent": digest("x")}),
        ("D3", "at another depth", {"depth": 2}),
        ("D4", "allows more", handed(activities=["charge", "ship"])),
        ("D4", "allows more by a pattern", handed(activities=["charge*"])),
        ("D5", "goes on longer", {"exp": NOW + 4000}),
        ("D6", "is for another place", {"aud": "example.org/main/other"}),
        ("D7", "forbids less", handed(forbid=None)),
    ):
        yield rule, f"a delegation that {how}", _bent(made, Delegation, 0, **changes), trust
    second = bend(leaf, made.key_of(leaf), parent=digest(leaf), depth=2, jti="two", **handed(until=NOW + 3001))
    yield "D8", "a delegation that goes on after the end", _with(made, leaf, leaf, second), trust
    third = bend(leaf, made.key_of(leaf), parent=digest(leaf), depth=2, jti="two", **handed(until=None))
    yield "D8", "a delegation that forgets the end", _with(made, leaf, leaf, third), trust
    late = bend(leaf, made.key_of(leaf), iat=NOW + 200, exp=NOW + 100)
    grant = _of(made, Grant)
    fixed = bend(grant, made.key_of(grant), renew_until=None)
    late = bend(late, made.key_of(leaf), parent=digest(fixed))
    statements = [{grant: fixed, leaf: late}.get(each, each) for each in made.statements]
    yield "D5", "a delegation issued after its end", written(made.document(statements) | {"logs": []}), trust
    yield (
        "D3",
        "65 delegations",
        _with(made, leaf, *(bend(leaf, made.key_of(leaf), jti=str(n)) for n in range(65))),
        trust,
    )


def _renewals(made: Made) -> Iterator[Broken]:
    trust, renewed = written(made.trust()), _of(made, Grant, 1)
    [given] = claims_of(renewed)["authorization_details"]
    for rule, how, changes in (
        ("W6", "renews nothing", {"renews": None}),
        ("W6", "renews another", {"renews": digest("x")}),
        ("G2", "is for another place", {"aud": "example.org/main/other"}),
        ("Z3", "is on behalf of another", {"sub": 'Agent::"other"'}),
        ("Z3", "has another id", {"jti": "another"}),
        ("Z3", "has another attribute", {"attributes": {"level": 3, "tenant": "north", "teams": ["b", "a"]}}),
        ("Z3", "only observes", {"mode": "observe"}),
        ("Z3", "is of the first version", {"ver": 1}),
        ("Z4", "allows something else", {"authorization_details": [given | {"activities": ["charge"]}]}),
        ("Z4", "is a child's", {"authorization_details": [given | {"child": True}]}),
        ("Z5", "is not renewed again", {"renew_until": None}),
        ("Z5", "prolongs", {"renew_until": NOW + DAY + 1}),
        ("Z5", "outlives the run", {"exp": NOW + DAY + 1}),
    ):
        yield rule, f"a renewal that {how}", _bent(made, Grant, 1, **changes), trust


def _agreements(made: Made) -> Iterator[Broken]:
    trust, need = written(made.trust()), {"group": "finance", "quorum": 1, "ttl": 3600}
    for rule, how, changes in (
        ("C6", "for another queue", {"task_queue": "other"}),
        ("C6", "for another activity", {"activity_type": "ship"}),
        ("O2", "ends before it begins", {"exp": NOW}),
        ("O4", "names a group twice", {"needs": [need, need]}),
        ("O4", "asks too many", {"needs": [need | {"quorum": 25}]}),
    ):
        yield rule, f"a challenge that {how}", _bent(made, Challenge, 0, **changes), trust
    challenge, approval = _of(made, Challenge), _of(made, Approval)
    elsewhere = bend(challenge, made.key_of(challenge), grant=digest("x"))
    alone = [{challenge: elsewhere}.get(each, each) for each in made.statements if each != approval]
    yield "W7", "a challenge under another grant", written(made.document(alone) | {"logs": []}), trust
    yield "W7", "an approval for a challenge that is not there", _with(made, challenge), trust
    closed = bend(challenge, made.key_of(challenge), keys=[digest("x")])
    answered = made.scene.authority.approval(closed)
    statements = [{challenge: closed, approval: answered}.get(each, each) for each in made.statements]
    document = made.document(statements) | {"logs": []}
    yield "O5", "an approval by a key that the challenge does not name", written(document), trust
    for rule, how, changes in (
        ("O6", "for another place", {"aud": "example.org/main/other"}),
        ("O7", "of other arguments", {"args": digest("x")}),
        ("O7", "of another run", {"original_run_id": "run-2"}),
        ("O8", "of another group", {"groups": ["finance", "other"]}),
        ("O8", "of no group", {"groups": []}),
        ("O9", "before the challenge", {"iat": NOW - 61}),
        ("O9", "after the challenge", {"iat": NOW + DAY + 1, "exp": NOW + DAY + 2}),
        ("O9", "that has ended before", {"exp": NOW + 10}),
        ("O9", "that counts for too long", {"exp": NOW + 10 + 3602}),
    ):
        yield rule, f"an approval {how}", _bent(made, Approval, 0, **changes), trust


def _belonging(made: Made) -> Iterator[Broken]:
    trust = written(made.trust())
    bare = made.document([_of(made, Grant)]) | {"logs": []}
    yield "W4", "a grant for another workflow", written(replaced(bare, ("proofs", "workflow_id"), "other")), trust
    yield "W4", "a request under another grant", _bent(made, Request, 0, grant=digest("x")), trust
    yield "W4", "a request of another workflow", _bent(made, Request, 0, workflow_id="other"), trust
    yield "W4", "a receipt for no request", _bent(made, Receipt, 0, request=digest("x")), trust
    yield "W4", "a lone receipt of another workflow", _bent(made, Receipt, 2, workflow_id="other"), trust
    yield "W4", "a local receipt for another core", _bent(made, Receipt, 1, request=digest("x")), trust
    core = claims_of(_of(made, Receipt, 1))["core"]
    yield "W4", "a local receipt of another workflow", _bent(made, Receipt, 1, core=core | {"workflow_id": "x"}), trust


def _checkpoints(made: Made) -> Iterator[Broken]:
    base, trust = made.document(), made.trust()
    head, honest = made.head(EVENTS[-1]), base["checkpoints"]
    text, _, lines = honest[2].rpartition("\n\n")
    first, cosigned, rest = lines.split("\n", 2)

    def noted(*notes: str) -> bytes:
        return written(base | {"checkpoints": list(notes)})

    def body(line: str) -> str:
        """The same line with the last bits of its signature changed."""
        return line[:-6] + ("AAAA" if line[-6:-2] != "AAAA" else "BBBB") + line[-2:]

    for rule, how, note in (
        ("N1", "too long", honest[2] + "— x " + "A" * 300_000 + "\n"),
        ("N1", "101 signatures", honest[2] + f"{first}\n" * 98),
        ("N2", "a tab", honest[2].replace("\n", "\t\n", 1)),
        ("N3", "no empty line", honest[2].replace("\n\n", "\n")),
        ("N3", "a last line that does not end", honest[2][:-1]),
        ("N4", "a hyphen", honest[2].replace("— ", "- ", 1)),
        ("N5", "a name with a wide space", honest[2] + "— a\u00a0b AAAAAAAA\n"),
        ("N6", "unused bits", honest[2] + "— a AAAAAAB=\n"),
        ("N6", "no signature", honest[2] + "— a AAAAAA==\n"),
        ("N8", "a wrong signature beside a good one", f"{honest[2]}{body(first)}\n"),
        ("L1", "two lines", f"a\n1\n\n{lines}"),
        ("L1", "an empty line", f"{text}\n\nx\n\n{lines}"),
        ("L2", "a size that begins with zero", honest[2].replace("\n12\n", "\n012\n")),
        ("L2", "a size beyond 63 bits", honest[2].replace("\n12\n", f"\n{2**63}\n")),
        ("L3", "a root with padding left out", honest[2].replace("=\n\n", "\n\n", 1)),
        ("L3", "a root of 31 bytes", f"a\n1\n{'A' * 40}AA==\n\n{lines}"),
        ("L3", "a root of nothing that is another", f"a\n0\n{'A' * 43}=\n\n{lines}"),
        ("L6", "a wrong cosignature", f"{text}\n\n{first}\n{body(cosigned)}\n{rest}"),
        ("L7", "one witness", made.note(head, cosigned=1)),
        ("W5", "a stranger", made.note(head, by=SigningKey.generate())),
    ):
        yield rule, f"a checkpoint with {how}", noted(*honest[:2], note), written(trust)
    one, two = trust["witnesses"]
    shared = str(VerifierKey("c", made.witnesses[0].x, COSIGNATURE))
    for rule, how, changes in (
        ("L5", "a notary that only cosigns", {"notaries": [one], "witnesses": [], "threshold": 0}),
        ("L8", "a witness that notarises", {"witnesses": [trust["notaries"][0], one, two]}),
        ("L8", "two witnesses with one key", {"witnesses": [one, shared, two]}),
        ("L8", "one witness that would have to be two", {"witnesses": [one, one]}),
    ):
        yield rule, how, written(base), written(trust | changes)
    forked = made.note(made.head(EVENTS[-1], root=made.tree.root(5)))
    yield "W3", "two checkpoints of one size", noted(*honest, forked), written(trust)
    yield "W3", "proofs without a checkpoint", noted(), written(trust)
    other = made.note(made.head(EVENTS[0], root=made.tree.root(9)))
    yield "T6", "a first checkpoint of another history", noted(other, *honest[1:]), written(trust)
    nothing = made.note(Checkpoint(made.origin(RUN), 0, Tree().root()))
    told = replaced(base, ("proofs", "consistency"), [{"earlier": 0, "later": EVENTS[-1], "hashes": []}])
    yield "T3", "a checkpoint of nothing", written(told | {"checkpoints": [nothing, honest[2]]}), written(trust)


def _proofs(made: Made) -> Iterator[Broken]:
    base, trust = made.document(), written(made.trust())
    inclusion, consistency = base["proofs"]["inclusion"][1], base["proofs"]["consistency"][0]
    hashes, links = inclusion["hashes"], consistency["hashes"]
    for rule, how, changes in (
        ("W3", "a hash with padding", {"hashes": [f"{hashes[0]}=", *hashes[1:]]}),
        ("T1", "a negative index", {"index": -1}),
        ("T1", "an index beyond 63 bits", {"index": 2**63}),
        ("T1", "65 hashes", {"hashes": hashes[:1] * 65}),
        ("T1", "a short hash", {"hashes": ["AAAA", *hashes[1:]]}),
        ("T3", "an index beyond the tree", {"index": 12}),
        ("T4", "a hash too few", {"hashes": hashes[:-1]}),
        ("T4", "a hash too many", {"hashes": [*hashes, hashes[0]]}),
        ("T5", "another leaf", {"leaf": "{}"}),
        ("T5", "another index", {"index": 5}),
        ("T5", "another hash", {"hashes": [digest("x"), *hashes[1:]]}),
    ):
        yield (
            rule,
            f"inclusion with {how}",
            written(replaced(base, ("proofs", "inclusion", 1), inclusion | changes)),
            trust,
        )
    for rule, how, changes in (
        ("W3", "a hash with padding", {"hashes": [f"{links[0]}=", *links[1:]]}),
        ("W3", "other sizes", {"later": 12}),
        ("T1", "65 hashes", {"hashes": links[:1] * 65}),
        ("T1", "a short hash", {"hashes": ["AAAA", *links[1:]]}),
        ("T4", "no hashes", {"hashes": []}),
        ("T4", "a hash too few", {"hashes": links[:-1]}),
        ("T4", "a hash too many", {"hashes": [*links, links[0]]}),
        ("T6", "another first hash", {"hashes": [digest("x"), *links[1:]]}),
        ("T6", "another last hash", {"hashes": [*links[:-1], digest("x")]}),
    ):
        bent = replaced(base, ("proofs", "consistency", 0), consistency | changes)
        yield rule, f"consistency with {how}", written(bent), trust
