"""Client certificates, SPIFFE ids in certificates and in tokens."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from exequatur.errors import IdentityError, IdentityUnavailableError
from exequatur.identity.certificates import MAX_CERTIFICATE, authorities_in
from exequatur.identity.credential import ACCESS_TOKEN_TYPE, Credential
from exequatur.identity.documents import FileSource, Kept
from exequatur.identity.jwks import IssuerKeys, keys_in
from exequatur.identity.mtls import MtlsVerifier
from exequatur.identity.spiffe import JwtSvidVerifier, X509SvidVerifier
from exequatur.identity.verifier import Claims, Verifiers
from tests.identity.ca import CLIENT, MOMENT, SERVER, Authority, der, dns, uri
from tests.identity.issuer import NOW, claims, jwks, new_key, signed

ROOT, OTHER = Authority("root"), Authority("root")  # the same name, another key
BETWEEN = Authority("between", ROOT)
SELF = "spiffe://example.org/ns/prod/sa/pay"
EC, RSA = new_key("ec"), new_key("rsa", "RSA")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("authorities")


def kept(folder: Path, data: bytes, make: Any = authorities_in) -> Kept[Any]:
    path = folder / f"{hash(data)}"
    path.write_bytes(data)
    return Kept(FileSource(path), make)


def svid(folder: Path, *, data: bytes | None = None) -> Verifiers:
    return Verifiers([], [X509SvidVerifier("mesh", "example.org", kept(folder, data or ROOT.bundle))])


def mtls(folder: Path, subject: Any = "uri", data: bytes | None = None) -> Verifiers:
    return Verifiers([], [MtlsVerifier("clients", kept(folder, data or ROOT.pem + BETWEEN.pem), subject)])


def verified(by: Verifiers, certificate: x509.Certificate, now: float = NOW) -> Claims:
    return by.verify_certificate(der(certificate), now)


def refused(by: Verifiers, certificate: x509.Certificate | bytes, now: float = NOW) -> str:
    with pytest.raises(IdentityError) as caught:
        by.verify_certificate(certificate if isinstance(certificate, bytes) else der(certificate), now)
    return caught.value.rule


@pytest.mark.rule("mtls.T1")
def test_a_client_certificate_is_known_by_its_alternative_name_and_never_by_its_common_name(folder: Path) -> None:
    found = verified(mtls(folder, "dns"), ROOT.issue("root-of-all", names=[dns("pay.example.com")]))
    assert (found.subject, found.verifier, found.workload) == ("pay.example.com", "clients", None)
    assert found.expires == NOW - 3600 + 86_400
    assert "root-of-all" not in json.dumps(dict(found.values))
    assert refused(mtls(folder, "dns"), ROOT.issue("pay.example.com", names=[uri("https://x.example.com")])) == "V1"
    assert refused(mtls(folder, "dns"), ROOT.issue("pay.example.com", names=[])) == "V1"


def test_an_intermediate_authority_of_the_bundle_is_a_way_to_the_root(folder: Path) -> None:
    certificate = BETWEEN.issue("pay", names=[dns("pay.example.com")])
    assert verified(mtls(folder, "dns"), certificate).subject == "pay.example.com"
    assert refused(mtls(folder, "dns", ROOT.pem), certificate) == "V1"


@pytest.mark.rule("certificates.X1")
def test_a_certificate_that_is_too_large_is_refused(folder: Path) -> None:
    many = [dns(f"{number}.{'x' * 60}.example.com") for number in range(500)]
    large = ROOT.issue("x", names=[uri(SELF), *many])
    assert len(der(large)) > MAX_CERTIFICATE
    assert refused(svid(folder), large) == "V1"


@pytest.mark.rule("mtls.T2")
def test_a_certificate_with_several_names_of_the_kind_is_refused(folder: Path) -> None:
    assert refused(mtls(folder, "dns"), ROOT.issue("x", names=[dns("a.example.com"), dns("b.example.com")])) == "T2"
    email = x509.RFC822Name("dana@example.com")
    assert verified(mtls(folder, "email"), ROOT.issue("x", names=[dns("a.example.com"), email])).subject == email.value


@pytest.mark.rule("certificates.X1")
@pytest.mark.rule("spiffe.P3")
def test_a_certificate_of_another_authority_of_the_same_name_is_refused(folder: Path) -> None:
    assert refused(mtls(folder), OTHER.issue("x", names=[uri(SELF)])) == "X1"
    assert refused(svid(folder), OTHER.issue("x", names=[uri(SELF)])) == "X1"


@pytest.mark.rule("certificates.X1")
def test_a_certificate_that_has_ended_or_not_begun_is_refused(folder: Path) -> None:
    for certificate in (
        ROOT.issue("x", names=[uri(SELF)], begins=MOMENT - timedelta(days=2)),
        ROOT.issue("x", names=[uri(SELF)], begins=MOMENT + timedelta(minutes=1)),
    ):
        for by in (mtls(folder), svid(folder)):
            with pytest.raises(IdentityError, match="ended or not begun"):
                by.verify_certificate(der(certificate), NOW)


@pytest.mark.rule("certificates.X1")
@pytest.mark.rule("verifier.V1")
@pytest.mark.parametrize("certificate", [b"", b"\x30", b"A" * 40_000, ROOT.pem])
def test_what_is_no_certificate_is_refused(folder: Path, certificate: bytes) -> None:
    assert refused(mtls(folder), certificate) == "V1"
    for each in (
        X509SvidVerifier("a", "example.org", kept(folder, ROOT.pem)),
        MtlsVerifier("b", kept(folder, ROOT.pem)),
    ):
        with pytest.raises(IdentityError, match=r"\[X1\]"):
            each.verify_certificate(certificate, NOW)


@pytest.mark.rule("certificates.X1")
def test_the_certificate_of_an_authority_identifies_nobody(folder: Path) -> None:
    for by in (mtls(folder), svid(folder)):
        assert refused(by, ROOT.issue("x", names=[uri(SELF)], ca=True)) == "X1"
        assert refused(by, ROOT.issue("x", names=[uri(SELF)], signs=True)) == "X1"


@pytest.mark.rule("certificates.X1")
@pytest.mark.rule("certificates.X2")
def test_a_certificate_that_is_not_for_clients_is_refused(folder: Path) -> None:
    server, silent = ROOT.issue("x", names=[uri(SELF)], usage=SERVER), ROOT.issue("x", names=[uri(SELF)], usage=())
    assert refused(mtls(folder), server) == "X1"
    assert refused(svid(folder), server) == "X1"
    assert refused(mtls(folder), silent) == "X2"
    assert verified(svid(folder), silent).subject == SELF


def test_an_x509_svid_is_believed(folder: Path) -> None:
    for data in (ROOT.bundle, ROOT.pem):
        found = verified(
            svid(folder, data=data), ROOT.issue("x", names=[uri(SELF), dns("x")], usage=(*SERVER, *CLIENT))
        )
        assert (found.subject, found.issuer, found.workload) == (SELF, "spiffe://example.org", "ns/prod/sa/pay")
        assert found.values["spiffe_path"] == "ns/prod/sa/pay"


@pytest.mark.rule("spiffe.P3")
def test_the_key_usage_of_an_x509_svid_is_critical_and_for_signatures(folder: Path) -> None:
    for usage in ({"key_usage": None}, {"key_usage": False}, {"digital": False}):
        assert refused(svid(folder), ROOT.issue("x", names=[uri(SELF)], **usage)) == "P3"  # type: ignore[arg-type]


@pytest.mark.rule("spiffe.P4")
@pytest.mark.parametrize(
    "names",
    [
        [SELF, "spiffe://example.org/other"], [SELF, "https://example.org"], ["spiffe://example.org/a/../b"],
        ["spiffe://example.org/"],
    ],
)  # fmt: skip
def test_an_x509_svid_has_one_uri_that_is_a_spiffe_id(folder: Path, names: list[str]) -> None:
    assert refused(svid(folder), ROOT.issue("x", names=[uri(each) for each in names])) == "P4"


@pytest.mark.rule("spiffe.P4")
@pytest.mark.rule("spiffe.P2")
def test_an_id_of_another_trust_domain_is_refused_by_whoever_it_is_signed(folder: Path) -> None:
    other = ROOT.issue("x", names=[uri("spiffe://other.example/pay")])
    assert refused(svid(folder), other) == "V1"
    with pytest.raises(IdentityError, match=r"\[P4\]"):
        X509SvidVerifier("mesh", "example.org", kept(folder, ROOT.bundle)).verify_certificate(der(other), NOW)


@pytest.mark.rule("verifier.V1")
def test_a_certificate_that_two_verifiers_take_is_refused(folder: Path) -> None:
    both = Verifiers(
        [], [X509SvidVerifier("a", "example.org", kept(folder, ROOT.pem)), MtlsVerifier("b", kept(folder, ROOT.pem))]
    )
    assert refused(both, ROOT.issue("x", names=[uri(SELF)])) == "V1"


def test_authorities_that_cannot_be_read_are_uncertainty(folder: Path) -> None:
    for data in (
        b"",
        b"nonsense",
        b"{}",
        b'{"keys":[{"use":"x509-svid"}]}',
        b'{"keys":[{"use":"x509-svid","x5c":["!"]}]}',
    ):
        for by in (svid(folder, data=data or b" "), mtls(folder, data=data or b" ")):
            with pytest.raises(IdentityUnavailableError):
                by.verify_certificate(der(ROOT.issue("x", names=[uri(SELF)])), NOW)
    with pytest.raises(ValueError, match="root"):
        authorities_in(BETWEEN.pem)


def jwt_svid(folder: Path, data: bytes | None = None, **more: Any) -> JwtSvidVerifier:
    bundle = data or jwks(EC, RSA, use="jwt-svid")
    keys = IssuerKeys(kept(folder, bundle, lambda text: keys_in(text, "jwt-svid")))
    return JwtSvidVerifier("mesh", "example.org", ("exequatur",), keys, **more)


def svid_claims(**changes: Any) -> dict[str, Any]:
    return claims(iss=None, **{"sub": SELF, **changes})


def refused_svid(folder: Path, token: str, by: JwtSvidVerifier | None = None) -> str:
    with pytest.raises(IdentityError) as caught:
        (by or jwt_svid(folder)).verify(Credential(token), NOW)
    return caught.value.rule


@pytest.mark.parametrize("typ", ["JWT", "JOSE", None])
def test_a_jwt_svid_is_believed(folder: Path, typ: str | None) -> None:
    for key, algorithm in ((EC, "ES256"), (RSA, "RS256"), (RSA, "PS512")):
        token = signed(key, svid_claims(spiffe_path="forged", trust_domain="forged"), algorithm, typ=typ)
        found = Verifiers([jwt_svid(folder)]).verify(Credential(token), NOW)
        assert (found.subject, found.workload, found.expires) == (SELF, "ns/prod/sa/pay", NOW + 300)
        assert (found.values["spiffe_path"], found.values["trust_domain"]) == ("ns/prod/sa/pay", "example.org")


@pytest.mark.rule("spiffe.P1")
def test_a_jwt_svid_is_signed_by_a_key_that_is_for_jwt_svids(folder: Path) -> None:
    token = signed(EC, svid_claims())
    assert refused_svid(folder, token, jwt_svid(folder, jwks(RSA, use="jwt-svid"))) == "K4"
    assert refused_svid(folder, signed(new_key("ec"), svid_claims())) == "K6"
    # Keys for X.509-SVIDs, or for something else, are none.
    with pytest.raises(IdentityUnavailableError):
        jwt_svid(folder, jwks(EC, use="x509-svid")).verify(Credential(token), NOW)
    with pytest.raises(IdentityUnavailableError):
        jwt_svid(folder, jwks(EC)).verify(Credential(token), NOW)
    okp = new_key("okp", "OKP")
    assert (
        refused_svid(folder, signed(okp, svid_claims(), "EdDSA"), jwt_svid(folder, jwks(okp, use="jwt-svid"))) == "K1"
    )
    for typ in ("at+jwt", "wit+jwt", 5):
        assert refused_svid(folder, signed(EC, svid_claims(), typ=typ)) == "O3"


@pytest.mark.rule("spiffe.P2")
@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"sub": "spiffe://other.example/pay"}, "P2"), ({"sub": "spiffe://example.org"}, "P2"), ({"sub": "dana"}, "P2"),
        ({"sub": "spiffe://example.org.evil/pay"}, "P2"), ({"sub": None}, "P2"), ({"sub": 5}, "P2"),
        ({"sub": "spiffe://example.org/a/../b"}, "P2"), ({"aud": "other"}, "O5"), ({"aud": None}, "O5"),
        ({"aud": []}, "O5"),
        ({"exp": None}, "O6"), ({"exp": NOW - 60}, "O6"), ({"cnf": {"jwk": {}}}, "O11"),
    ],
)  # fmt: skip
def test_a_jwt_svid_of_another_domain_audience_or_time_is_refused(
    folder: Path, changes: dict[str, Any], rule: str
) -> None:
    assert refused_svid(folder, signed(EC, svid_claims(**changes))) == rule


def test_only_what_says_that_it_is_of_the_trust_domain_is_taken_for_a_jwt_svid(folder: Path) -> None:
    by = jwt_svid(folder)
    assert by.accepts(Credential(signed(EC, svid_claims())))
    assert not by.accepts(Credential(signed(EC, svid_claims()), ACCESS_TOKEN_TYPE))
    assert not by.accepts(Credential(signed(EC, svid_claims(sub="spiffe://other.example/pay"))))
    assert not by.accepts(Credential(signed(EC, svid_claims(sub=5))))
    assert not by.accepts(Credential("x"))
