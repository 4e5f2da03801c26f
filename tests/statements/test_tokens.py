"""Rules V: what a token must look like before anybody asks who signed it."""

import json

import pytest

from exequatur.statements.encoding import to_base64url
from exequatur.statements.jws import check_signature, parse, sign, type_of
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import ALL, Grant, Receipt, Request, Statement, claims_dict, claims_json
from tests.simulator import Scene, bend, claims_of, forge, header_of, refused, wrongly_signed


def test_an_honest_token_says_what_was_signed(scene: Scene) -> None:
    token = parse(scene.grant, Grant)
    check_signature(token, scene.authority.grant_key.x)
    assert token.kid == scene.authority.grant_key.kid
    assert claims_dict(token.claims) == claims_of(scene.grant)
    assert type_of(scene.grant) == Grant.typ


def test_signing_again_gives_the_same_token(scene: Scene) -> None:
    assert sign(parse(scene.grant, Grant).claims, scene.authority.grant_key).text == scene.grant


def test_each_statement_has_a_type_of_its_own() -> None:
    assert len({kind.typ for kind in ALL}) == len(ALL)


@pytest.mark.rule("V1")
def test_a_token_over_its_cap_is_refused(scene: Scene) -> None:
    grant = bend(scene.grant, scene.authority.grant_key, attributes={"note": "x" * Grant.max_bytes})
    with refused("V1"):
        parse(grant, Grant)


def test_nothing_over_its_cap_is_signed(scene: Scene) -> None:
    grant = parse(scene.grant, Grant).claims.model_copy(update={"attributes": {"note": "x" * Grant.max_bytes}})
    with pytest.raises(ValueError, match="more than its 16384"):
        sign(grant, scene.authority.grant_key)


@pytest.mark.rule("V2")
@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_a_token_of_another_number_of_segments_is_refused(scene: Scene, count: int) -> None:
    token = ".".join([*scene.grant.split("."), to_base64url(b"more")][:count])
    with refused("V2"):
        parse(token, Grant)


@pytest.mark.rule("V2")
def test_a_signature_in_a_second_spelling_is_refused(scene: Scene) -> None:
    # 64 bytes leave four bits of the last character unused, so a lenient decoder takes 16 spellings of one signature.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    second = scene.grant[:-1] + alphabet[alphabet.index(scene.grant[-1]) | 1]
    assert second != scene.grant
    with refused("V2"):
        check_signature(parse(second, Grant), scene.authority.grant_key.x)


@pytest.mark.rule("V2")
@pytest.mark.parametrize("segment", [0, 1, 2])
@pytest.mark.parametrize("foreign", ["=", "+", "/", " ", "\n", "é", "\ud800", "A"])
def test_a_segment_that_is_not_base64url_is_refused(scene: Scene, segment: int, foreign: str) -> None:
    segments = scene.grant.split(".")
    # Four characters more than a whole number of groups cannot be base64.
    segments[segment] += foreign * (5 - len(segments[segment]) % 4)
    with refused("V2"):
        parse(".".join(segments), Grant)


@pytest.mark.rule("V2")
def test_a_header_of_unusual_length_is_refused_before_it_is_decoded(scene: Scene) -> None:
    token = forge(header_of(scene.grant) | {"kid": "k" * 600}, claims_of(scene.grant), scene.authority.grant_key)
    with refused("V2"):
        parse(token, Grant)


@pytest.mark.rule("V3")
@pytest.mark.parametrize(
    "change",
    [
        {"crit": ["exp"]},
        {"jwk": {"kty": "OKP"}},
        {"x5u": "https://attacker.example.org"},
        {"b64": False},
        {"kid": 5},
        {"kid": ""},
        {"kid": "\ud800" * 43},
        {"typ": None},
        {"alg": ["EdDSA"]},
    ],
    ids=str,
)
def test_a_header_with_anything_but_its_three_members_is_refused(scene: Scene, change: dict[str, object]) -> None:
    token = forge(header_of(scene.grant) | change, claims_of(scene.grant), scene.authority.grant_key)
    with refused("V3"):
        parse(token, Grant)


@pytest.mark.rule("V3")
@pytest.mark.parametrize("missing", ["alg", "kid", "typ"])
def test_a_header_without_one_of_its_members_is_refused(scene: Scene, missing: str) -> None:
    header = {name: value for name, value in header_of(scene.grant).items() if name != missing}
    with refused("V3"):
        parse(forge(header, claims_of(scene.grant), scene.authority.grant_key), Grant)


@pytest.mark.rule("V3")
def test_a_header_that_names_its_algorithm_twice_is_refused(scene: Scene) -> None:
    header = json.dumps(header_of(scene.grant)).replace("{", '{"alg": "none", ', 1).encode()
    with refused("V3"):
        parse(forge(header, claims_of(scene.grant), scene.authority.grant_key), Grant)


@pytest.mark.rule("V3")
@pytest.mark.parametrize("header", [b"", b"null", b'["alg","kid","typ"]', b'"alg"', b"\xff", b"[" * 300])
def test_a_header_that_is_no_json_object_is_refused(scene: Scene, header: bytes) -> None:
    with refused("V3"):
        parse(forge(header, claims_of(scene.grant), scene.authority.grant_key), Grant)


@pytest.mark.rule("V4")
@pytest.mark.parametrize("alg", ["none", "None", "HS256", "RS256", "ES256", "Ed25519", "eddsa", ""])
def test_an_algorithm_that_is_not_on_the_list_is_refused(scene: Scene, alg: str) -> None:
    token = forge(header_of(scene.grant) | {"alg": alg}, claims_of(scene.grant), scene.authority.grant_key)
    with refused("V4"):
        parse(token, Grant)


@pytest.mark.rule("V5")
def test_a_statement_under_the_type_of_another_is_refused(scene: Scene) -> None:
    header = header_of(scene.grant) | {"typ": Receipt.typ}
    with refused("V5"):
        parse(forge(header, claims_of(scene.grant), scene.authority.grant_key), Grant)


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind is not Request], ids=lambda kind: kind.__name__)
def test_a_request_is_no_other_statement(scene: Scene, kind: type[Statement]) -> None:
    with refused("V5"):
        parse(scene.request, kind)


@pytest.mark.rule("V6")
def test_a_claim_that_is_not_known_is_refused(scene: Scene) -> None:
    with refused("V6"):
        parse(bend(scene.grant, scene.authority.grant_key, admin=True), Grant)


@pytest.mark.rule("V6")
def test_a_part_of_a_claim_that_is_not_known_is_refused(scene: Scene) -> None:
    [authorization] = claims_of(scene.grant)["authorization_details"]
    details = [authorization | {"any_workflow": True}]
    with refused("V6"):
        parse(bend(scene.grant, scene.authority.grant_key, authorization_details=details), Grant)


@pytest.mark.rule("V6")
def test_a_claim_that_is_missing_is_refused_and_named(scene: Scene) -> None:
    with pytest.raises(Exception, match=r"field: start_by \[V6\]"):
        parse(bend(scene.grant, scene.authority.grant_key, start_by=None), Grant)


@pytest.mark.rule("V6")
@pytest.mark.parametrize(
    "change",
    [
        {"exp": "1800000000"},
        {"exp": True},
        {"exp": -1},
        {"exp": 10**400},
        {"exp": float("inf")},
        {"exp": 99_999_999_999},
        {"sub": 5},
        {"sub": ""},
        {"sub": "\ud800"},
        {"policies": "start"},
        {"policies": {}},
        {"mode": "off"},
        {"ver": 3},
        {"bundle": "too short"},
        {"authorization_details": []},
        {"attributes": []},
    ],
    ids=str,
)
def test_a_claim_of_another_kind_is_refused(scene: Scene, change: dict[str, object]) -> None:
    with refused("V6"):
        parse(bend(scene.grant, scene.authority.grant_key, **change), Grant)


@pytest.mark.rule("V6")
def test_a_grant_that_covers_two_workflows_is_refused(scene: Scene) -> None:
    details = claims_of(scene.grant)["authorization_details"] * 2
    with refused("V6"):
        parse(bend(scene.grant, scene.authority.grant_key, authorization_details=details), Grant)


@pytest.mark.rule("V6")
def test_a_claim_that_stands_there_twice_is_refused(scene: Scene) -> None:
    claims = claims_json(parse(scene.grant, Grant).claims)
    twice = claims.replace(b"{", b'{"mode":"observe",', 1)
    assert twice.count(b'"mode"') == 2
    with refused("V6"):
        parse(forge(header_of(scene.grant), twice, scene.authority.grant_key), Grant)


@pytest.mark.rule("V6")
def test_an_attribute_that_stands_there_twice_is_refused(scene: Scene) -> None:
    grant = scene.authority.grant(attributes={"limit": 1})
    twice = claims_json(parse(grant, Grant).claims).replace(b'{"limit":1}', b'{"limit":1,"limit":1000000}')
    with refused("V6"):
        parse(forge(header_of(grant), twice, scene.authority.grant_key), Grant)


@pytest.mark.rule("V6")
@pytest.mark.parametrize(
    "claims",
    [b"", b"null", b"[]", b"{", b"\xff\xfe", b'{"a":NaN}', b'{"a":Infinity}', b"[" * 10_000, b"9" * 6_000],
    ids=lambda claims: claims[:12].decode("latin-1"),
)
def test_claims_that_are_no_json_object_are_refused(scene: Scene, claims: bytes) -> None:
    with refused("V6"):
        parse(forge(header_of(scene.grant), claims, scene.authority.grant_key), Grant)


@pytest.mark.rule("V6")
def test_attributes_that_are_nested_without_end_are_refused(scene: Scene) -> None:
    grant = scene.authority.grant(attributes={"deep": []})
    deep = claims_json(parse(grant, Grant).claims).replace(b'"deep":[]', b'"deep":' + b"[" * 5000 + b"]" * 5000)
    with refused("V6"):
        parse(forge(header_of(grant), deep, scene.authority.grant_key), Grant)


@pytest.mark.rule("V7")
def test_a_signature_by_another_key_is_refused(scene: Scene) -> None:
    token = parse(wrongly_signed(scene.grant, scene.attacker), Grant)
    with refused("V7"):
        check_signature(token, scene.authority.grant_key.x)


@pytest.mark.rule("V7")
@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65)], ids=len)
def test_something_that_is_no_signature_is_refused(scene: Scene, signature: bytes) -> None:
    token = parse(f"{scene.grant.rpartition('.')[0]}.{to_base64url(signature)}", Grant)
    with refused("V7"):
        check_signature(token, scene.authority.grant_key.x)


@pytest.mark.rule("V7")
def test_a_token_that_verified_under_one_key_does_not_verify_under_another(scene: Scene) -> None:
    token = parse(scene.grant, Grant)
    check_signature(token, scene.authority.grant_key.x)
    with refused("V7"):
        check_signature(token, scene.attacker.x)


@pytest.mark.rule("V7")
@pytest.mark.parametrize("x", ["", "AAAA", "A" * 43, "=" * 43, SigningKey.generate().x + "A"], ids=len)
def test_a_key_that_is_none_verifies_nothing(scene: Scene, x: str) -> None:
    with refused("V7"):
        check_signature(parse(scene.grant, Grant), x)
