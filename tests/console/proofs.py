"""Evidence documents of one honest run, made by hand with real keys, and everything that can be done to them."""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice, pairwise
from typing import Any

from exequatur.lineage import checkpoint as checkpoints
from exequatur.lineage import document
from exequatur.lineage.checkpoint import Checkpoint, run_origin
from exequatur.lineage.link import Link, genesis_of
from exequatur.lineage.merkle import Tree, leaf_hash
from exequatur.lineage.note import COSIGNATURE, VerifierKey
from exequatur.statements.encoding import digest, from_base64url, to_base64url
from exequatur.statements.jws import type_of
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import (
    Approval,
    Grant,
    Permit,
    WorkflowAuthorization,
    WorkloadCredential,
)
from tests.lineage.chained import bundle, chained, decision
from tests.simulator import NOW, SITE, Scene, authorize, bend, claims_of, forge, header_of

NOTARY = "notary.example.org/n"
WITNESSES = ("witness.example.net/a", "witness.example.net/b")
RUN = "run-1"
EVENTS = (5, 9, 12)
"""What the checkpoints cover."""

Json = dict[str, Any]
Case = tuple[str, bytes, bytes]
"""What was done, the document, and the trust file."""


@dataclass
class Made:
    """A run's documents, and the keys to sign others.

    Args:
        delegated: Whether the run is a child's, under a delegation.
    """

    delegated: bool = False
    scene: Scene = field(default_factory=Scene)

    def __post_init__(self) -> None:
        self.notary = SigningKey.generate()
        self.witnesses = [SigningKey.generate() for _ in WITNESSES]
        self.leaves = [event(number) for number in range(1, EVENTS[-1] + 1)]
        self.tree = Tree(leaf_hash(leaf.encode()) for leaf in self.leaves)
        self.statements = self._statements()

    # The statements.

    def _statements(self) -> list[str]:
        scene, authority = self.scene, self.scene.authority
        parent = authorize(
            workflow_id="parent-1", activities=("charge", "ref*"), forbid=("forbid(principal, action, resource);",)
        )
        grant = authority.grant(
            renew_until=NOW + 86_400,
            ver=2,
            attributes={"level": 3, "tenant": "north", "teams": ["a", "b"]},
            **({"authorization": parent} if self.delegated else {}),
        )
        held_by = [grant]
        if self.delegated:
            child = authorize(activities=("charge",), forbid=parent.forbid, until=NOW + 3000)
            held_by.append(scene.delegation_under(grant, authorization_details=(child,)))
        leaf = held_by[-1]
        scene.grant = leaf
        scene.request = scene.request_under(leaf)
        challenge = scene.challenge()
        held: WorkflowAuthorization = authorize() if not self.delegated else child.model_copy(update={"child": True})
        renewed = bend(
            grant,
            authority.grant_key,
            renews=digest(leaf),
            exp=NOW + 7200,
            authorization_details=[json.loads(held.model_dump_json(exclude_none=True))],
        )
        core = scene.core().model_copy(update={"seq": 3, "activity_type": "ship"})
        return [
            *held_by,
            scene.workflows.credential,
            scene.activities.credential,
            scene.request,
            scene.receipt(),
            scene.request_under(leaf, seq=2, answers=digest("x"), restriction={"activities": ("charge",)}),
            challenge,
            authority.approval(challenge),
            scene.receipt(request=core.hash(), core=core, args=digest("args"), activity_type="ship", attempt=2),
            scene.receipt(request=None, request_digest=None, decision="none", outcome="rejected", reason="no header"),
            scene.mark(),
            renewed,
            scene.request_under(renewed, seq=4),
            scene.message_under(leaf, workflow_id="refund-1", original_run_id=RUN, run_id=RUN, target="other-1"),
            scene.call_under(leaf),
            authority.permit(),
            authority.permit(jti="elsewhere", target="another"),
            bend(authority.permit(), scene.attacker),
        ]

    def key_of(self, token: str) -> SigningKey:
        """The key that signs a statement of this type, whoever has signed this one."""
        authority = self.scene.authority
        by_type = {
            Grant.typ: authority.grant_key,
            WorkloadCredential.typ: authority.credential_key,
            Permit.typ: authority.permit_key,
            Approval.typ: authority.approval_key,
        }
        workers = (self.scene.workflows, self.scene.activities)
        by_kid = {each.key.kid: each.key for each in workers}
        return by_type.get(type_of(token)) or by_kid[header_of(token)["kid"]]

    # The checkpoints.

    def origin(self, run_id: str = RUN) -> str:
        return run_origin(SITE, "default", "refund-1", run_id)

    def note(self, head: Checkpoint, *, by: SigningKey | None = None, cosigned: int = 2) -> str:
        note = checkpoints.sign(head, NOTARY, by or self.notary)
        for name, key in list(zip(WITNESSES, self.witnesses, strict=True))[:cosigned]:
            note = checkpoints.cosign(note, name, key, int(NOW))
        return note

    def head(self, size: int, **changes: Any) -> Checkpoint:
        return Checkpoint(**{"origin": self.origin(), "size": size, "root": self.tree.root(size)} | changes)

    # The whole.

    def document(self, statements: list[str] | None = None) -> Json:
        """The document as JSON values."""
        largest = EVENTS[-1]
        proofs = {
            "version": "exequatur proofs v1",
            "api": "temporalio 1.35.0",
            "workflow_id": "refund-1",
            "run_id": RUN,
            "statements": self.statements if statements is None else statements,
            "inclusion": [
                {
                    "index": index,
                    "leaf": self.leaves[index],
                    "hashes": [to_base64url(each) for each in self.tree.inclusion_proof(index, largest)],
                }
                for index in (0, 6, largest - 1)
            ],
            "consistency": [
                {
                    "earlier": earlier,
                    "later": later,
                    "hashes": [to_base64url(each) for each in self.tree.consistency_proof(earlier, later)],
                }
                for earlier, later in pairwise(EVENTS)
            ],
        }
        namespace = Checkpoint(f"{SITE}/namespaces/default", 1, Tree([leaf_hash(b"x")]).root())
        notes = [*(self.note(self.head(size)) for size in EVENTS), self.note(namespace)]
        seal = f"{self.scene.seal_under(self.scene.grant)}~{self.scene.workflows.credential}"
        other = self.scene.seal_under(self.scene.grant, run_id="run-0", original_run_id="run-0")
        bodies = (
            decision(),
            ("seal", seal.encode()),
            ("seal", other.encode()),
            bundle("permit(principal, action, resource);"),
        )
        out = io.BytesIO()
        document.write(out, linked(*bodies), notes, json.loads(self.scene.trust.to_jwks()), proofs)
        found: Json = json.loads(out.getvalue())
        return found

    def trust(self, **changes: Any) -> Json:
        """The trust file as JSON values."""
        keys = json.loads(self.scene.trust.to_jwks())["keys"]
        witnesses = [str(VerifierKey(n, k.x, COSIGNATURE)) for n, k in zip(WITNESSES, self.witnesses, strict=True)]
        honest = {
            "keys": keys,
            "notaries": [str(VerifierKey(NOTARY, self.notary.x))],
            "witnesses": witnesses,
            "threshold": 2,
        }
        return {name: value for name, value in (honest | changes).items() if value is not None}


def event(number: int) -> str:
    return json.dumps({"eventId": str(number), "eventType": "EVENT_TYPE_TIMER_STARTED"}, separators=(",", ":"))


def linked(*bodies: tuple[str, bytes]) -> list[Link]:
    records = chained(*bodies)
    heads = [genesis_of(records[0].log_id), *(each.head for each in records)]
    return [Link(record, previous) for record, previous in zip(records, heads, strict=False)]


def written(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


# Values.


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield path
    if isinstance(value, dict):
        for name, member in value.items():
            yield from places(member, (*path, name))
    elif isinstance(value, list):
        # What is in many items alike is touched in the first, in one in the middle and in the last.
        for index in sorted({0, len(value) // 2, len(value) - 1}) if value else ():
            yield from places(value[index], (*path, index))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of a value with another one in a place."""
    if not path:
        return new
    value = copy.copy(value)
    value[path[0]] = replaced(value[path[0]], path[1:], new)
    return value


GONE = object()


def without(value: Any, path: tuple[Any, ...]) -> Any:
    *way, last = path
    holder = copy.copy(at(value, tuple(way)))
    del holder[last]
    return replaced(value, tuple(way), holder)


def others(value: Any) -> Iterator[tuple[str, Any]]:
    """What could stand in the place of a value."""
    yield from (
        ("null", None),
        ("a list", []),
        ("an object", {}),
        ("true", True),
        ("a text", "x"),
        ("1", 1),
        ("1.5", 1.5),
    )
    match value:
        case bool():
            yield "the other", not value
        case int() | float():
            yield from (("more", value + 1), ("less", value - 1), ("negative", -value), ("zero", 0), ("-0.0", -0.0))
            yield from (
                ("large", 2**53),
                ("larger", 2**53 + 1),
                ("63 bits", 2**63),
                ("long", 10**40),
                ("as a float", float(value)),
            )
        case str():
            yield from bent(value)
        case list():
            yield from (("reversed", value[::-1]), ("without the first", value[1:]), ("without the last", value[:-1]))
            yield from (
                ("doubled", value + value),
                ("the first twice", value[:1] + value),
                ("with a text", [*value, "x"]),
            )
        case dict():
            yield from (("with more", {**value, "more": 1}), ("with __proto__", {**value, "__proto__": {}}))


def bent(text: str) -> Iterator[tuple[str, str]]:
    """A text with one character changed, or more or less of it."""
    yield from (("empty", ""), ("cut", text[:-1]), ("from the second", text[1:]), ("twice", text + text))
    for name, more in (
        ("=", "="),
        ("newline", "\n"),
        ("space", " "),
        ("NUL", "\0"),
        ("emoji", "\U0001f600"),
        ("A", "A"),
    ):
        yield f"and {name}", text + more
    for index in sorted({0, len(text) // 3, len(text) // 2, len(text) - 1}) if text else ():
        for new in ("A", "B", "-", "+", "é", "0"):
            if text[index] != new:
                yield f"{new} at {index}", text[:index] + new + text[index + 1 :]
    yield "half a pair", text + "\ud800"


class Every:
    """One in so many, from the first on."""

    def __init__(self, number: int = 1) -> None:
        self._number, self._asked = number, -1

    def __call__(self) -> bool:
        self._asked += 1
        return self._asked % self._number == 0


def value_mutants(value: Json, kept: Every | None = None) -> Iterator[tuple[str, bytes]]:
    """Every member of a JSON value gone, of another type, or another."""
    kept = kept or Every()
    for path in places(value):
        where = ".".join(map(str, path)) or "the whole"
        held = at(value, path)
        for how, new in others(held):
            if (type(new) is not type(held) or new != held) and kept():
                yield f"{where}: {how}", _bytes(replaced(value, path, new))
        if path and kept():
            yield f"{where}: gone", _bytes(without(value, path))


def _bytes(value: Any) -> bytes:
    try:
        return written(value)
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can write
        return json.dumps(value, separators=(",", ":")).encode()


# Bytes.


def byte_mutants(data: bytes, count: int, seed: int = 7) -> Iterator[tuple[str, bytes]]:
    """The bytes of a document cut, changed, and with what is no JSON."""
    chance = random.Random(seed)
    for position in sorted(chance.sample(range(len(data)), count)):
        new = chance.choice(b'"\\{}[],:0aA- \n\x00\x80\xff')
        yield f"byte {position} is {new:#x}", data[:position] + bytes([new]) + data[position + 1 :]
    for position in sorted(chance.sample(range(len(data)), count // 2)):
        yield f"cut at {position}", data[:position]
    for name, text in {
        "a byte order mark": b"\xef\xbb\xbf" + data,
        "UTF-16": data.decode().encode("utf-16"),
        "more behind it": data + b"{}",
        "white space around it": b" \t\r\n" + data + b"\n ",
        "form feed before it": b"\f" + data,
        "nothing": b"",
        "a list": b"[]",
        "a number": b"1",
        "brackets": b"[" * 100_000,
        "braces": b'{"a":' * 100_000,
        "garbage": bytes(range(256)) * 40,
        "a member twice": data[:-2] + b',"version":"exequatur evidence v1"}',
        "a member twice, once escaped": data[:-2] + b',"versio\\u006e":"exequatur evidence v1"}',
        "a member more": data[:-2] + b',"more":1}',
    }.items():
        yield name, text
    before, after = data.split(b'"keys":', 1)
    for name, text in {
        "NaN": b"NaN",
        "Infinity": b"Infinity",
        "1e999": b"1e999",
        "a dot": b"1.",
        "a zero before": b"01",
        "half a pair": b'"\\ud800"',
        "both halves": b'"\\ud83d\\ude00"',
        "the halves turned": b'"\\ude00\\ud83d"',
        "an escape that is none": b'"\\x41"',
        "a tab": b'"\t"',
        "DEL": b'"\x7f"',
        "4300 digits": b"1" * 4300,
        "-4300 digits": b"-" + b"1" * 4300,
        "4301 digits": b"1" * 4301,
        "198 levels": b"[" * 198 + b"]" * 198,
        "199 levels": b"[" * 199 + b"]" * 199,
        "400 levels": b"[" * 400 + b"]" * 400,
        "a member twice": b'{"a":1,"a":1}',
        "the halves of a member twice": b'{"\\ud83d\\ude00":1,"\xf0\x9f\x98\x80":1}',
        "__proto__": b'{"__proto__":1,"constructor":{"x":1}}',
    }.items():
        yield f"in trust: {name}", before + b'"keys":' + text + b',"more":' + after


# Statements.


def token_mutants(made: Made, kept: Every | None = None) -> Iterator[tuple[str, bytes]]:
    """Every statement bent, gone, doubled, and with everything else that its own signer could have signed."""
    base = made.document() | {"logs": []}  # whose seals bring credentials of their own
    bent_deeply = _first_of_kind(made)
    kept = kept or Every()
    for number, token in enumerate(made.statements):
        name = f"statement {number}, {type_of(token)}"
        for how, new in _written_tokens(token, made.key_of(token), deep=number in bent_deeply):
            if kept():
                yield f"{name}: {how}", _bytes(_with(base, number, new()))
        yield f"{name}: gone", written(_with(base, number, None))
        yield f"{name}: last", written(_with(base, number, None, token))
        yield (
            f"{name}: first",
            written(replaced(base, ("proofs", "statements"), [token, *_all_but(made.statements, number)])),
        )


def _first_of_kind(made: Made) -> set[int]:
    """Where the first statement of each kind stands, and the renewal, which is a second grant."""
    seen: dict[tuple[str, bool], int] = {}
    for number, token in enumerate(made.statements):
        seen.setdefault((type_of(token), "renews" in claims_of(token)), number)
    return set(seen.values())


def _all_but(tokens: list[str], number: int) -> list[str]:
    return tokens[:number] + tokens[number + 1 :]


def _with(base: Json, number: int, *new: str | None) -> Json:
    tokens = base["proofs"]["statements"]
    changed = [*tokens[:number], *(each for each in new if each is not None), *tokens[number + 1 :]]
    return replaced(base, ("proofs", "statements"), changed)


def _written_tokens(token: str, key: SigningKey, *, deep: bool) -> Iterator[tuple[str, Callable[[], str]]]:
    """What was done to a token, and what makes the new one: signing takes time, and not all are asked for."""
    header, claims, signature = token.split(".")
    for part, text, build in (
        ("header", header, lambda new: f"{new}.{claims}.{signature}"),
        ("claims", claims, lambda new: f"{header}.{new}.{signature}"),
        ("signature", signature, lambda new: f"{header}.{claims}.{new}"),
    ):
        for how, new in bent(text) if deep else list(bent(text))[:4]:
            yield f"{part} {how}", partial(build, new)
    yield "a segment more", lambda: f"{token}."
    yield "two segments", lambda: f"{header}.{claims}"
    if not deep:
        return
    held = header_of(token)
    for how, changed in (
        ("alg none", held | {"alg": "none"}),
        ("alg HS256", held | {"alg": "HS256"}),
        ("alg Ed25519", held | {"alg": "Ed25519"}),
        ("a jwk", held | {"jwk": {}}),
        ("a crit", held | {"crit": []}),
        ("another typ", held | {"typ": "JWT"}),
        ("a grant's typ", held | {"typ": Grant.typ}),
        ("a release's typ", held | {"typ": "exequatur-release+jwt"}),
        ("half a pair as typ", held | {"typ": "\ud800"}),
        ("no kid", {name: held[name] for name in ("alg", "typ")}),
        ("another kid", held | {"kid": digest("another")}),
        ("a kid that is none", held | {"kid": "x"}),
        ("turned", dict(reversed(held.items()))),
        ("spaced", json.dumps(held, indent=1).encode()),
        ("twice", json.dumps(held).encode()[:-1] + b',"alg":"EdDSA"}'),
        ("a list", [held]),
        ("nothing", b""),
    ):
        yield f"signed with {how}", partial(forge, changed, claims_of(token), key)
    said = claims_of(token)
    for path in places(said):
        where = ".".join(map(str, path)) or "claims"
        for how, new in _signed_values(at(said, path)):
            yield f"{where} signed as {how}", partial(forge, held, replaced(said, path, new), key)
        if path:
            yield f"{where} signed away", partial(forge, held, without(said, path), key)
    text = json.dumps(said).encode()
    for how, raw in (
        ("a member twice", text[:-1] + b',"iss":"x"}'),
        ("not UTF-8", text[:-1] + b',"x":"\xff"}'),
        ("NaN", text.replace(str(said["iat"]).encode(), b"NaN", 1)),
        ("spaces", b" " + text + b" \n"),
        ("deep", text[:-1] + b',"x":' + b"[" * 300 + b"]" * 300 + b"}"),
        ("half a pair", text[:-1] + b',"x":"\\ud800"}'),
    ):
        yield f"claims signed as {how}", partial(forge, held, raw, key)
    yield "too long", partial(forge, held, said | {"jti": "x" * 33_000}, key)


def _signed_values(value: Any) -> Iterator[tuple[str, Any]]:
    """Values that a signer could have put in the place of another: few, but of each kind and at each bound."""
    yield from (("null", None), ("a list", []), ("true", True), ("a text", "x"), ("1", 1))
    match value:
        case bool():
            yield "the other", not value
        case int() | float():
            for new in (
                value + 1,
                value - 1,
                value + 100_000,
                value - 100_000,
                -1,
                0,
                float(value),
                32_503_680_000,
                32_503_680_001,
            ):
                yield repr(new), new
            yield "long", 10**40
        case str():
            long = "x" * 1000
            yield from (
                ("empty", ""),
                ("1000", long),
                ("1001", long + "x"),
                ("1000 wide", "\U0001f600" * 500),
                ("more", value + "x"),
            )
            yield from (("a digest", digest("other")), ("a digest with bits left over", "A" * 42 + "B"), ("*", "*"))
        case list():
            yield from (
                ("empty", []),
                ("twice", value + value),
                ("*", ["*"]),
                ("of 300", ["x"] * 300),
                ("sets", ["[!a-c]*", "?"]),
            )
        case dict():
            yield from (("empty", {}), ("with more", {**value, "more": 1}))


def notes_of(made: Made) -> Iterator[tuple[str, bytes]]:
    """Checkpoints that somebody could have signed."""
    base = made.document()
    largest = EVENTS[-1]
    stranger = SigningKey.generate()
    honest = base["checkpoints"]
    head = made.head(largest)
    text, _, lines = honest[2].rpartition("\n\n")
    cases: dict[str, list[str]] = {
        "none": [],
        "only the largest": honest[2:],
        "by a stranger": [*honest[:2], made.note(head, by=stranger)],
        "without witnesses": [*honest[:2], made.note(head, cosigned=0)],
        "with one witness": [*honest[:2], made.note(head, cosigned=1)],
        "of an earlier one without witnesses": [made.note(made.head(5), cosigned=0), *honest[1:]],
        "of another root": [*honest[:2], made.note(made.head(largest, root=made.tree.root(5)))],
        "two at one size": [*honest, made.note(made.head(largest, root=made.tree.root(5)))],
        "extended": [*honest[:2], made.note(made.head(largest, extensions=("more",)))],
        "one extended, one not": [*honest, made.note(made.head(largest, extensions=("more",)))],
        "of another run": [*honest, made.note(made.head(largest, origin=made.origin("run-2")))],
        "of an empty tree": [made.note(Checkpoint(made.origin(), 0, Tree().root())), *honest],
        "larger, and not linked": [*honest, made.note(Checkpoint(made.origin(), 2**63 - 1, head.root))],
        "in another order": honest[::-1],
        "twice": honest + honest,
        "signature lines turned": [
            *honest[:2],
            f"{text}\n\n" + "".join(f"{each}\n" for each in lines.split("\n")[-2::-1]),
        ],
        "a signature line twice": [*honest[:2], honest[2] + lines.split("\n")[0] + "\n"],
        "a hundred signature lines": [*honest[:2], honest[2] + (lines.split("\n")[0] + "\n") * 97],
        "too many signature lines": [*honest[:2], honest[2] + (lines.split("\n")[0] + "\n") * 98],
        "of 300 kB": [*honest[:2], honest[2] + "— x " + "A" * 300_000 + "\n"],
        "with a strange line": [*honest[:2], honest[2] + "— somebody AAAAAAAA\n"],
        "with a line without name": [*honest[:2], honest[2] + "—  AAAAAAAA\n"],
        "with a short line": [*honest[:2], honest[2] + "— somebody AAAA\n"],
        "with a wide name": [*honest[:2], honest[2] + "— some\u00a0body AAAAAAAA\n"],
        "with a marked name": [*honest[:2], honest[2] + "— some\ufeffbody AAAAAAAA\n"],
        "with NEL": [*honest[:2], honest[2] + "— some\u0085body AAAAAAAA\n"],
        "with a tab": [*honest[:2], honest[2].replace("\n", "\t\n", 1)],
        "of size 012": [*honest[:2], honest[2].replace("\n12\n", "\n012\n")],
        "of size 9223372036854775808": [*honest[:2], honest[2].replace("\n12\n", f"\n{2**63}\n")],
        "garbage of another log": [*honest, "x"],
    }
    for line in range(3):
        for how, new in bent(lines.split("\n")[line]):
            changed = lines.split("\n")
            changed[line] = new
            cases[f"signature line {line} {how}"] = [*honest[:2], f"{text}\n\n" + "\n".join(changed)]
    for line in range(3):
        for how, new in bent(text.split("\n")[line]):
            changed = text.split("\n")
            changed[line] = new
            cases[f"line {line} {how}"] = [*honest[:2], "\n".join(changed) + f"\n\n{lines}"]
    for name, notes in cases.items():
        yield f"checkpoints {name}", _bytes(base | {"checkpoints": notes})


def records_of(made: Made) -> Iterator[tuple[str, bytes]]:
    """Records that a journal did not write, with heads that follow."""
    base = made.document()
    seal = base["logs"][0]["records"][1]["body"]
    bare, _, credential = from_base64url(seal).decode().partition("~")
    header, claims, signature = bare.split(".")
    key = made.scene.workflows.key

    def signed(changes: bytes) -> bytes:
        return forge(header_of(bare), json.dumps(claims_of(bare)).encode()[:-1] + changes + b"}", key).encode()

    bodies: dict[str, list[tuple[str, bytes]]] = {
        "none": [],
        "a seal without its credential": [("seal", bare.encode())],
        "a seal of another kind of record": [("note", b"x.y.z")],
        "a seal that is none": [("seal", b"x.y.z")],
        "a seal of another workflow": [("seal", bend(bare, key, workflow_id="another").encode())],
        "a seal under another grant": [("seal", bend(bare, key, grant=digest("another")).encode())],
        "a seal by another key": [("seal", bend(bare, made.scene.attacker).encode())],
        "a seal with a strange credential": [("seal", f"{bare}~{header}.{claims}.{signature[:-2]}AA".encode())],
        "a seal with more behind it": [("seal", f"{bare}~{credential}~".encode())],
        "a seal that is not ASCII": [("seal", f"{bare}~é".encode())],
        "a seal with a deep claim": [("seal", signed(b',"x":' + b"[" * 150 + b"]" * 150))],
        "a seal with a deeper claim": [("seal", signed(b',"x":' + b"[" * 500 + b"]" * 500))],
        "a seal with the deepest claim": [("seal", signed(b',"x":' + b"[" * 5000 + b"]" * 5000))],
        "a seal with half a pair": [("seal", signed(b',"x":"\\ud800"'))],
        "a seal with a claim twice": [("seal", signed(b',"run_id":"run-1"'))],
        "a seal of a run with a long id": [("seal", bend(bare, key, run_id="x" * 300).encode())],
        "bytes": [("x", bytes(range(256)))],
        "a strange kind": [("\U0001f600\0", b"")],
    }
    for name, given in bodies.items():
        links = linked(*given) if given else []
        out = io.BytesIO()
        document.write(out, links, base["checkpoints"], None, base["proofs"])
        yield f"records: {name}", out.getvalue()


def trust_mutants(made: Made, every: int = 1) -> Iterator[tuple[str, bytes]]:
    """Trust files of others, and what is none."""
    yield from value_mutants(made.trust(), Every(every))
    yield from islice(byte_mutants(written(made.trust()), 60), 0, None, min(every, FEW))
    stranger = Made()
    yield "another's", written(stranger.trust())
    own = made.trust()
    notary, (one, two) = own["notaries"][0], own["witnesses"]
    for name, changes in {
        "no notary": {"notaries": []},
        "another notary": {"notaries": stranger.trust()["notaries"]},
        "two notaries": {"notaries": [*stranger.trust()["notaries"], notary]},
        "the notary twice": {"notaries": [notary, notary]},
        "a witness as notary": {"notaries": [notary, one]},
        "the witness alone as notary": {"notaries": [one], "witnesses": [], "threshold": 0},
        "the notary as witness": {"witnesses": [notary, one, two]},
        "a witness twice": {"witnesses": [one, one, two], "threshold": 2},
        "one witness twice, two demanded": {"witnesses": [one, one]},
        "nobody demanded": {"threshold": 0},
        "three demanded": {"threshold": 3},
        "a shared key": {"witnesses": [one, str(VerifierKey("c", made.witnesses[0].x, COSIGNATURE)), two]},
        "keys retired early": {"keys": [each | {"exp": NOW - 7200} for each in own["keys"]]},
        "keys retired later": {"keys": [each | {"exp": NOW + 7200} for each in own["keys"]]},
        "keys from tomorrow": {"keys": [each | {"nbf": NOW + 86_400} for each in own["keys"]]},
        "keys of another issuer": {"keys": [each | {"iss": "https://other.example.org"} for each in own["keys"]]},
        "keys twice": {"keys": own["keys"] * 2},
        "a key put back": {"keys": [own["keys"][0] | {"exp": NOW}, *own["keys"]]},
        "a key retired": {"keys": [*own["keys"], own["keys"][0] | {"exp": NOW}]},
        "a key changed": {"keys": [*own["keys"], own["keys"][0] | {"iss": "x"}]},
        "turned roles": {
            "keys": [one | {"typ": two["typ"]} for one, two in zip(own["keys"], own["keys"][::-1], strict=True)]
        },
    }.items():
        yield name, written(made.trust(**changes))
    yield "huge", b" " * (4 * 1024 * 1024) + written(own)


FEW = 4
"""Of the smaller families one in so many is taken, where not all are."""


def cases(every: int = 1) -> Iterator[Case]:
    """Documents and trust files, honest and not.

    Args:
        every: Of the large families, one in so many.
    """
    for made in (Made(), Made(delegated=True)):
        kind = "child" if made.delegated else "run"
        base = made.document()
        honest, trust = written(base), written(made.trust())
        smaller = [notes_of(made), records_of(made)]
        if not made.delegated:
            smaller.append(byte_mutants(honest, 300))
            for name, text in trust_mutants(made, every):
                yield f"{kind}: trust {name}", honest, text
        families = [
            iter([("honest", honest)]),
            token_mutants(made, Every(every)),
            value_mutants(base, Every(every * (FEW if made.delegated else 1))),
            islice(chain.from_iterable(smaller), 0, None, min(every, FEW)),
        ]
        for name, text in chain.from_iterable(families):
            yield f"{kind}: {name}", text, trust
