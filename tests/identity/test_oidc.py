"""Tokens of an OpenID provider: what is believed, and everything that is not."""

from typing import Any

import pytest

from exequatur.errors import ConfigurationError, IdentityError
from exequatur.identity.credential import ACCESS_TOKEN_TYPE, LOCAL_TYPE, MAX_TOKEN, Credential
from exequatur.identity.keyset import KeySet
from exequatur.identity.oidc import OidcVerifier
from exequatur.identity.tokens import Signed
from exequatur.identity.verifier import Claims, Verifiers
from exequatur.statements.encoding import strict_json
from tests.identity.issuer import ISSUER, NOW, claims, jwks, new_key, segment, signed, signed_with_hmac

EC, RSA, OKP, OTHER = new_key("ec"), new_key("rsa", "RSA"), new_key("okp", "OKP"), new_key("ec")
PUBLISHED = jwks(EC, RSA, OKP)


NO_CLAIMS = (b"[1]", b"{", b"", bytes([0xFF, 0xFE]), b"[" * 6000, b'{"a":' * 2000 + b"1" + b"}" * 2000)


class Fixed:
    """Keys that do not change."""

    def __init__(self, data: bytes = PUBLISHED) -> None:
        self.keys = KeySet.of(strict_json(data))

    def for_token(self, token: Signed) -> KeySet:
        return self.keys


def verifier(keys: bytes = PUBLISHED, **changes: Any) -> OidcVerifier:
    return OidcVerifier("corp", ISSUER, ("exequatur",), Fixed(keys), **changes)


def verified(token: str, now: float = NOW, **changes: Any) -> Claims:
    return Verifiers([verifier(**changes)]).verify(Credential(token), now)


def refused(token: str, now: float = NOW, **changes: Any) -> str:
    """The rule that refuses it. No part of the token is in the message."""
    with pytest.raises(IdentityError) as caught:
        verified(token, now, **changes)
    assert not any(part and part in str(caught.value) for part in token.split("."))
    return caught.value.rule


@pytest.mark.parametrize(
    ("key", "algorithm"), [(EC, "ES256"), (RSA, "RS256"), (RSA, "PS256"), (OKP, "EdDSA"), (OKP, "Ed25519")]
)
def test_a_token_of_the_issuer_is_believed(key: Any, algorithm: str) -> None:
    found = verified(signed(key, claims(email="d@example.com"), algorithm))
    assert (found.issuer, found.subject, found.verifier) == (ISSUER, "dana", "corp")
    assert (found.values["email"], found.expires, found.once) == ("d@example.com", NOW + 300, False)
    assert "d@example.com" not in repr(found)


@pytest.mark.rule("oidc.O2")
@pytest.mark.rule("keyset.K6")
def test_a_forged_token_is_refused() -> None:
    good = signed(EC, claims())
    header, _, signature = good.split(".")
    assert refused(f"{header}.{segment(claims(sub='root'))}.{signature}") == "K6"
    assert refused(signed(OTHER, claims())) == "K6"


@pytest.mark.rule("keyset.K1")
def test_no_token_chooses_an_algorithm_that_is_not_configured() -> None:
    assert refused(signed(RSA, claims(), "RS384")) == "K1"
    assert refused(signed(RSA, claims(), "RS256"), algorithms=("ES256",)) == "K1"


@pytest.mark.rule("keyset.K1")
@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", 5, None, ["RS256"], {"RS256": 1}])
def test_an_unsigned_token_is_refused_however_it_says_so(algorithm: Any) -> None:
    header = {"alg": algorithm, "typ": "JWT", "kid": "rsa"}
    for signature in ("AA", signed(RSA, claims(), "RS256").split(".")[2]):
        assert refused(f"{segment(header)}.{segment(claims())}.{signature}") == "K1"
    assert refused(f"{segment(header)}.{segment(claims())}.") == "V1"


@pytest.mark.rule("keyset.K1")
def test_a_public_key_is_never_taken_for_an_hmac_secret() -> None:
    public = [RSA.as_pem(private=False), RSA.as_der(private=False), PUBLISHED, RSA.as_dict()["n"].encode()]  # type: ignore[union-attr]
    for secret in public:
        assert refused(signed_with_hmac(secret, claims(), kid="rsa")) == "K1"
    with pytest.raises(ConfigurationError, match="HS256 cannot be used"):
        verifier(algorithms=("RS256", "HS256"))


@pytest.mark.rule("oidc.O1")
@pytest.mark.parametrize("algorithms", [("none",), ("HS512",), ("RSA1_5",), ("ES256K",), ()])
def test_a_verifier_cannot_be_configured_with_what_is_not_asymmetric(algorithms: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="choose among RS256"):
        verifier(algorithms=algorithms)


def test_a_verifier_has_an_audience() -> None:
    with pytest.raises(ConfigurationError, match="has no audience"):
        OidcVerifier("corp", ISSUER, (), Fixed())


@pytest.mark.rule("keyset.K3")
def test_a_key_of_another_kind_verifies_nothing() -> None:
    assert refused(signed(EC, claims(), "ES256", kid="rsa")) == "K3"
    assert refused(signed(RSA, claims(), "RS256", kid="ec")) == "K3"
    assert refused(signed(RSA, claims(), "RS256"), keys=jwks(RSA, alg="PS256")) == "K3"
    p384 = new_key("big", "EC-384")
    assert refused(signed(EC, claims(), "ES256", kid="big"), keys=jwks(p384)) == "K3"


@pytest.mark.rule("keyset.K2")
@pytest.mark.rule("keyset.K3")
@pytest.mark.parametrize("more", [{"use": "enc"}, {"key_ops": ["sign"]}, {"key_ops": "verify"}, {"use": ["sig"]}])
def test_a_key_that_is_for_something_else_verifies_nothing(more: dict[str, Any]) -> None:
    assert refused(signed(EC, claims()), keys=jwks(EC, **more)) == "K4"


@pytest.mark.rule("keyset.K2")
def test_a_key_that_is_no_secret_any_more_verifies_nothing() -> None:
    leaked = strict_json(jwks(EC))
    leaked["keys"][0] = EC.as_dict(private=True)
    assert KeySet.of(leaked).keys == ()


@pytest.mark.rule("keyset.K2")
@pytest.mark.parametrize(
    "key",
    [
        None, 5, [], {}, {"kty": []}, {"kty": "oct", "k": "AAAA"}, {"kty": "RSA"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kty": "RSA", "n": "_" * 2000, "e": "AQAB"}, {"kty": "RSA", "n": 5, "e": 3},
        {"kty": "RSA", "n": "=", "e": "="},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"},
        {"kty": "OKP", "crv": "X25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AA"}, {"kty": "OKP", "crv": ["Ed25519"], "x": "AA"},
    ],
)  # fmt: skip
def test_what_is_no_usable_key_is_passed_over(key: Any) -> None:
    assert KeySet.of({"keys": [key]}).keys == ()


@pytest.mark.parametrize("document", [None, 5, [], {}, {"keys": {}}, {"keys": [{}] * 257}])
def test_what_is_no_key_set_is_refused(document: Any) -> None:
    with pytest.raises(ValueError, match="keys"):
        KeySet.of(document)


@pytest.mark.rule("keyset.K4")
def test_a_token_is_verified_by_the_key_that_it_names() -> None:
    assert refused(signed(EC, claims(), kid="gone")) == "K4"
    assert refused(signed(EC, claims(), kid=5)) == "K4"
    assert refused(signed(EC, claims(), kid=["ec"])) == "K4"
    # One key for its algorithm is enough; several are a guess.
    assert verified(signed(EC, claims(), kid=None)).subject == "dana"
    assert refused(signed(EC, claims(), kid=None), keys=jwks(EC, new_key("second"))) == "K4"


@pytest.mark.rule("keyset.K5")
def test_two_keys_of_one_id_verify_nothing() -> None:
    assert refused(signed(EC, claims()), keys=jwks(EC, OTHER)) == "K5"


@pytest.mark.rule("tokens.R4")
def test_a_token_does_not_bring_the_key_that_it_is_verified_by() -> None:
    for name in ("jwk", "jku", "x5u", "x5c"):
        value: Any = (
            OTHER.as_dict(private=False) if name == "jwk" else ["AA"] if name == "x5c" else "https://evil.example"
        )
        assert refused(signed(OTHER, claims(), **{name: value})) == "K6"
        assert verified(signed(EC, claims(), **{name: value})).subject == "dana"
    for name, value in (("crit", ["exp"]), ("crit", []), ("b64", False)):
        assert refused(signed(EC, claims(), **{name: value})) == "V1"
        with pytest.raises(IdentityError, match=r"extension.*\[R4\]"):
            verifier().verify(Credential(signed(EC, claims(), **{name: value})), NOW)


@pytest.mark.rule("oidc.O3")
@pytest.mark.parametrize("typ", ["logout+jwt", "dpop+jwt", "secevent+jwt", "", 5, ["JWT"], "exequatur-grant+jwt"])
def test_a_token_of_another_type_is_no_identity(typ: Any) -> None:
    assert refused(signed(EC, claims(), typ=typ)) == "O3"


@pytest.mark.rule("oidc.O3")
def test_the_type_that_is_asked_for_has_to_be_there() -> None:
    asked = {"type": "at+jwt"}
    assert refused(signed(EC, claims()), **asked) == "O3"
    assert refused(signed(EC, claims(), typ=None), **asked) == "O3"
    for typ in ("at+jwt", "AT+JWT", "application/at+jwt"):
        assert verified(signed(EC, claims(), typ=typ), **asked).subject == "dana"
    assert verified(signed(EC, claims(), typ=None)).subject == "dana"


@pytest.mark.rule("verifier.V1")
@pytest.mark.rule("oidc.O4")
@pytest.mark.parametrize("issuer", ["https://login.example.com/", "https://LOGIN.example.com", "", None, 5, [ISSUER]])
def test_a_token_of_another_issuer_is_refused(issuer: Any) -> None:
    token = signed(EC, claims(iss=issuer))
    assert refused(token) == "V1"
    with pytest.raises(IdentityError, match=r"\[O4\]"):
        verifier().verify(Credential(token), NOW)


@pytest.mark.rule("oidc.O5")
@pytest.mark.parametrize(
    "audience", ["other", "exequatur ", "EXEQUATUR", "", [], ["other"], None, 5, {"exequatur": 1}, ["exequatur", 5]]
)
def test_a_token_for_another_audience_is_refused(audience: Any) -> None:
    assert refused(signed(EC, claims(aud=audience))) == "O5"


def test_a_token_may_be_for_several_audiences() -> None:
    assert verified(signed(EC, claims(aud=["other", "exequatur"]))).subject == "dana"


@pytest.mark.rule("oidc.O6")
def test_an_ended_token_is_refused_and_clocks_may_differ_by_the_leeway() -> None:
    token = signed(EC, claims(exp=NOW))
    assert verified(token, NOW + 29).expires == NOW
    assert refused(token, NOW + 30) == "O6"
    assert refused(token, NOW, leeway=0.0) == "O6"


@pytest.mark.rule("oidc.O6")
@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_a_token_that_has_not_begun_is_refused(name: str) -> None:
    token = signed(EC, claims(**{name: NOW + 60, "exp": NOW + 900}))
    assert refused(token, NOW + 29) == "O6"
    assert verified(token, NOW + 31).subject == "dana"


@pytest.mark.rule("oidc.O6")
@pytest.mark.parametrize("value", ["1800000300", True, -1, 1e300, 10**400, [], {}, "soon"])
@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
def test_a_time_that_is_none_is_refused(name: str, value: Any) -> None:
    assert refused(signed(EC, claims(**{name: value}))) == "O6"


@pytest.mark.rule("oidc.O6")
def test_a_token_without_an_end_is_refused() -> None:
    assert refused(signed(EC, claims(exp=None))) == "O6"
    for text in ('"exp":null', '"exp":NaN', '"exp":Infinity'):
        payload = f'{{"iss":"{ISSUER}","sub":"dana","aud":"exequatur",{text}}}'.encode()
        assert refused(signed(EC, payload)) in ("O6", "V1")


@pytest.mark.rule("oidc.O7")
def test_a_token_that_lives_too_long_is_refused() -> None:
    assert refused(signed(EC, claims(iat=NOW, exp=NOW + 7200)), max_lifetime=3600.0) == "O7"
    assert refused(signed(EC, claims(iat=None, exp=NOW + 7200)), max_lifetime=3600.0) == "O7"
    assert verified(signed(EC, claims(iat=NOW, exp=NOW + 3600)), max_lifetime=3600.0).subject == "dana"


@pytest.mark.rule("oidc.O8")
@pytest.mark.parametrize("subject", ["", None, 5, ["dana"]])
def test_a_token_about_nobody_is_refused(subject: Any) -> None:
    assert refused(signed(EC, claims(sub=subject))) == "O8"


@pytest.mark.rule("oidc.O8")
@pytest.mark.parametrize("value", ["", None, [], {}])
def test_a_claim_that_is_required_has_to_be_there(value: Any) -> None:
    assert refused(signed(EC, claims(email=value)), required=("email",)) == "O8"


@pytest.mark.rule("oidc.O9")
def test_a_token_that_was_issued_to_another_client_is_refused() -> None:
    for more in (
        {},
        {"azp": "other"},
        {"client_id": "other"},
        {"azp": "other", "client_id": "mine"},
        {"azp": ["mine"]},
    ):
        assert refused(signed(EC, claims(**more)), clients=("mine",)) == "O9"
    assert verified(signed(EC, claims(azp="mine")), clients=("mine",)).subject == "dana"


@pytest.mark.rule("oidc.O10")
def test_a_token_that_is_used_once_has_an_id() -> None:
    for token_id in (None, "", 5, ["a"]):
        assert refused(signed(EC, claims(jti=token_id)), once=True) == "O10"
    found = verified(signed(EC, claims(jti="one")), once=True)
    assert (found.token_id, found.once) == ("one", True)


@pytest.mark.rule("oidc.O11")
@pytest.mark.parametrize(
    "confirmation",
    [
        None,
        5,
        {},
        {"jwk": {}},
        {"jkt": "A" * 43},
        {"x5t#S256": 5},
        {"x5t#S256": "AA"},
        {"x5t#S256": "A" * 43, "jkt": "A"},
    ],
)
def test_a_token_that_is_bound_to_what_cannot_be_checked_is_refused(confirmation: Any) -> None:
    token = signed(EC, {**claims(), "cnf": confirmation})
    assert refused(token) == "O11"


def test_a_token_that_is_bound_to_a_certificate_says_so() -> None:
    assert verified(signed(EC, claims(cnf={"x5t#S256": "A" * 43}))).certificate == "A" * 43


@pytest.mark.rule("tokens.R1")
@pytest.mark.rule("tokens.R2")
@pytest.mark.rule("tokens.R3")
@pytest.mark.rule("verifier.V1")
@pytest.mark.parametrize(
    "token",
    [
        "", ".", "..", "a.b.c", "a.b.c.d", "\ud800", "ä.ä.ä", "AA.AA.AA", "A" * 16_385,
        "=".join([segment({"alg": "ES256"}), f".{segment(claims())}.AA"]),
        f"{segment(b'[]')}.{segment(claims())}.AA",
        *(f"{segment({'alg': 'ES256'})}.{segment(each)}.AA" for each in NO_CLAIMS),
    ],
)  # fmt: skip
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(IdentityError) as caught:
        verified(token)
    assert caught.value.rule == "V1"
    with pytest.raises(IdentityError) as caught:
        verifier().verify(Credential(token), NOW)
    assert caught.value.rule in ("R1", "R2", "R3")


@pytest.mark.rule("tokens.R1")
@pytest.mark.rule("verifier.V1")
def test_a_token_that_is_too_long_is_refused_before_it_is_read() -> None:
    token = signed(EC, claims(more="x" * 13_000))
    assert len(token) > MAX_TOKEN
    with pytest.raises(IdentityError, match=r"\[R1\]"):
        verifier().verify(Credential(token), NOW)
    with pytest.raises(IdentityError, match=r"16384 \[V1\]"):
        verified(token)


@pytest.mark.rule("tokens.R3")
def test_a_member_that_comes_twice_makes_a_token_ambiguous() -> None:
    payload = b'{"iss":"https://login.example.com","sub":"dana","sub":"root","aud":"exequatur","exp":1800000300}'
    with pytest.raises(IdentityError, match=r"\[R3\]"):
        verifier().verify(Credential(signed(EC, payload)), NOW)


@pytest.mark.rule("verifier.V1")
def test_a_credential_is_for_exactly_one_verifier() -> None:
    token = signed(EC, claims())
    twice = Verifiers([verifier(), OidcVerifier("too", ISSUER, ("exequatur",), Fixed())])
    with pytest.raises(IdentityError, match=r"Several verifiers are for this credential \(corp, too\)"):
        twice.verify(Credential(token), NOW)
    with pytest.raises(IdentityError, match="No verifier"):
        Verifiers([verifier()]).verify(Credential(token, LOCAL_TYPE), NOW)
    with pytest.raises(IdentityError, match="No verifier"):
        Verifiers([verifier(token_types=(ACCESS_TOKEN_TYPE,))]).verify(Credential(token), NOW)
    with pytest.raises(ConfigurationError, match="Two verifiers are called 'corp'"):
        Verifiers([verifier(), verifier()])


@pytest.mark.rule("verifier.V2")
def test_a_verifier_that_fails_refuses_the_credential_and_tells_nothing_of_it() -> None:
    class Broken:
        def for_token(self, token: Signed) -> KeySet:
            raise RuntimeError(f"the token is {token.signed!r}")

    broken = Verifiers([OidcVerifier("corp", ISSUER, ("exequatur",), Broken())])
    with pytest.raises(IdentityError, match=r"\[V2\]") as caught:
        broken.verify(Credential(signed(EC, claims())), NOW)
    assert caught.value.__cause__ is None
    assert "token is" not in str(caught.value)
