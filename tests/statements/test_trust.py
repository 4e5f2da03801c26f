"""Rules T: which anchor may have signed a statement, and a trust store that only ever grows."""

import json
from typing import Any

import pytest

from exequatur.errors import ConfigurationError, UnknownKeyError
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Delegation, Grant, WorkloadCredential
from exequatur.statements.trust import Anchor, TrustStore
from tests.simulator import NOW, Authority, Scene, bend, refused


@pytest.mark.rule("T1")
def test_a_key_that_is_not_there_is_unknown_which_is_no_verdict(scene: Scene) -> None:
    with refused("T1"):
        scene.chain(bend(scene.grant, scene.attacker))
    with pytest.raises(UnknownKeyError):
        scene.credentials(bend(scene.workflows.credential, scene.attacker))


@pytest.mark.rule("T2")
def test_a_grant_signed_with_the_credential_key_is_refused(scene: Scene) -> None:
    with refused("T2"):
        scene.chain(bend(scene.grant, scene.authority.credential_key))


@pytest.mark.rule("T2")
def test_a_credential_signed_with_the_grant_key_is_refused(scene: Scene) -> None:
    with refused("T2"):
        scene.credentials(bend(scene.workflows.credential, scene.authority.grant_key))


@pytest.mark.rule("T3")
def test_a_grant_from_before_its_key_was_valid_is_refused(scene: Scene) -> None:
    with refused("T3"):
        scene.chain(scene.authority.grant(iat=NOW - 86_401))


@pytest.mark.rule("T3")
def test_a_grant_from_after_its_key_was_retired_is_refused(scene: Scene) -> None:
    scene.trust.add(scene.authority.anchor(scene.authority.grant_key, Grant.typ, exp=NOW - 61))
    with refused("T3"):
        scene.chain()


def test_a_retired_key_still_verifies_what_it_signed_while_it_was_valid(scene: Scene) -> None:
    scene.trust.add(scene.authority.anchor(scene.authority.grant_key, Grant.typ, exp=NOW - 60))
    assert scene.chain().grant.text == scene.grant


@pytest.mark.rule("T4")
def test_a_grant_in_the_name_of_another_issuer_is_refused(scene: Scene) -> None:
    other = Authority("https://other.example.org")
    for anchor in other.trust:
        scene.trust.add(anchor)
    with refused("T4"):
        scene.chain(scene.authority.grant(iss=other.iss))


# The store.


def anchor(key: SigningKey, **changes: Any) -> Anchor:
    return Anchor(**{"kid": key.kid, "x": key.x, "typ": (Grant.typ,), "iss": "a", "nbf": NOW} | changes)


@pytest.fixture
def key() -> SigningKey:
    return SigningKey.generate()


def test_adding_an_anchor_again_changes_nothing(key: SigningKey) -> None:
    store = TrustStore([anchor(key)])
    store.add(anchor(key))
    assert list(store) == [anchor(key)]


@pytest.mark.parametrize(
    "change", [{"typ": (WorkloadCredential.typ,)}, {"iss": "b"}, {"nbf": NOW - 1}, {"nbf": NOW + 1}], ids=str
)
def test_an_anchor_that_is_there_cannot_be_changed(key: SigningKey, change: dict[str, Any]) -> None:
    store = TrustStore([anchor(key)])
    with pytest.raises(ConfigurationError, match="may be retired but not changed"):
        store.add(anchor(key, **change))
    assert list(store) == [anchor(key)]


def test_a_key_is_retired_for_good(key: SigningKey) -> None:
    store = TrustStore([anchor(key), anchor(key, exp=NOW + 100)])
    for later in (None, NOW + 101):
        with pytest.raises(ConfigurationError, match="may not be put back"):
            store.add(anchor(key, exp=later))
    store.add(anchor(key, exp=NOW + 50))
    assert [each.exp for each in store] == [NOW + 50]


def test_a_kid_is_its_keys_thumbprint(key: SigningKey) -> None:
    with pytest.raises(ConfigurationError, match="thumbprint"):
        TrustStore([anchor(key, kid=SigningKey.generate().kid)])


@pytest.mark.parametrize(
    "typ", [("exequatur-receipt+jwt",), (Delegation.typ,), ("*",), (Grant.typ, WorkloadCredential.typ)], ids=str
)
def test_an_anchor_has_one_role_of_an_authority(key: SigningKey, typ: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="exactly one of exequatur-approval"):
        TrustStore([anchor(key, typ=typ)])


def test_a_store_survives_being_written_and_read(scene: Scene) -> None:
    scene.trust.add(scene.authority.anchor(scene.authority.grant_key, Grant.typ, exp=NOW))
    assert list(TrustStore.from_jwks(scene.trust.to_jwks())) == list(scene.trust)


def jwk(**changes: object) -> dict[str, object]:
    key = SigningKey.generate()
    entry = {"kty": "OKP", "crv": "Ed25519", "kid": key.kid, "x": key.x, "typ": [Grant.typ], "iss": "a", "nbf": NOW}
    return {name: value for name, value in (entry | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("change", "member"),
    [
        ({"x": None}, "x"),
        ({"x": "short"}, "x"),
        ({"kid": None}, "kid"),
        ({"iss": ""}, "iss"),
        ({"typ": []}, "typ"),
        ({"typ": "exequatur-grant+jwt"}, "typ"),
        ({"nbf": "now"}, "nbf"),
        ({"exp": True}, "exp"),
        ({"d": "a private key"}, "d"),
        ({"kty": "RSA"}, "kty"),
        ({"crv": "X25519"}, "crv"),
    ],
    ids=str,
)
def test_a_member_of_a_jwk_that_cannot_be_used_is_named(change: dict[str, object], member: str) -> None:
    data = json.dumps({"keys": [jwk(), jwk(**change)]}).encode()
    with pytest.raises(ConfigurationError, match=rf"^trust\.jwks: .*member: {member}\b"):
        TrustStore.from_jwks(data, "trust.jwks")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": [], "keys": []}',
        b"\xff",
        b"[" * 100_000,
        b'{"keys": [null]}',
        b'{"keys": ["\\ud800"]}',
        b'{"keys": [{"kid": "\\ud800"}]}',
    ],
    ids=lambda data: data[:24].decode("latin-1"),
)
def test_a_file_that_is_no_jwk_set_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(ConfigurationError, match=r"trust\.jwks"):
        TrustStore.from_jwks(data, "trust.jwks")
