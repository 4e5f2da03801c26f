"""Only a machine that a configured cloud vouches for, and that a rule lists, is attested."""

import base64
import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from exequatur.errors import ConfigurationError, StatementError
from exequatur.integrity.instance import MAX_BYTES, InstanceAttester, attesters_of, read_attesters, read_instance
from exequatur.statements.keys import SigningKey

VECTORS = Path(__file__).parent / "vectors"
NOW = datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC).timestamp()
KEY = SigningKey.generate().public
DOCUMENT = {
    "accountId": "123456789012",
    "imageId": "ami-1",
    "instanceId": "i-1",
    "pendingTime": "2026-11-01T08:00:00Z",
    "region": "eu-west-1",
}


class Cloud:
    """Signs what it is asked to."""

    def __init__(self, bits: int = 2048, *, ends: int = 2100) -> None:
        self.key = rsa.generate_private_key(65537, bits)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ec2.example")])
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(7)
            .not_valid_before(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
            .not_valid_after(datetime.datetime(ends, 1, 1, tzinfo=datetime.UTC))
            .sign(self.key, hashes.SHA256())
        )

    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def signed(self, document: str) -> str:
        signature = self.key.sign(document.encode(), padding.PKCS1v15(), hashes.SHA256())
        return json.dumps({"document": document, "signature": base64.b64encode(signature).decode()})

    def message(self, document: str, algorithm: Any = None, *options: pkcs7.PKCS7Options) -> str:
        builder = pkcs7.PKCS7SignatureBuilder().set_data(document.encode())
        signed = builder.add_signer(self.certificate, self.key, algorithm or hashes.SHA256())
        data = signed.sign(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary, *options])
        return shown(data)


def shown(message: bytes) -> str:
    return json.dumps({"rsa2048": base64.b64encode(message).decode()})


@pytest.fixture(scope="module")
def cloud() -> Cloud:
    return Cloud()


def attester(folder: Path, cloud: Cloud, **rule: Any) -> InstanceAttester:
    (folder / "cloud.pem").write_bytes(cloud.pem())
    table = {"certificates": ["cloud.pem"], "accounts": ["123456789012"], "environment": "production", **rule}
    return attesters_of([table], folder / "instances.toml")[0]


def refused(attester: InstanceAttester, evidence: str, now: float = NOW) -> str:
    with pytest.raises(StatementError) as error:
        attester.attest(evidence, KEY, now)
    return error.value.rule


def test_a_machine_that_its_cloud_vouches_for_is_attested(tmp_path: Path, cloud: Cloud) -> None:
    here = attester(tmp_path, cloud, regions=["eu-west-1"], images=["ami-1"], instances=["i-1"])
    document = json.dumps(DOCUMENT)
    for evidence in (cloud.signed(document), cloud.message(document)):
        found = here.attest(evidence, KEY, NOW)
        assert (found.machine, found.environment) == ("123456789012/eu-west-1/i-1", "production")


@pytest.mark.parametrize("name", ["streamed.p7", "plain.p7"])
def test_messages_that_openssl_wrote_are_read(name: str) -> None:
    """BER with indefinite lengths and signed attributes, as clouds stream them; DER without attributes."""
    [here] = attesters_of([{"certificates": ["cloud.pem"], "accounts": ["123456789012"]}], VECTORS / "instances.toml")
    armored = f"-----BEGIN PKCS7-----\n{(VECTORS / name).read_text()}-----END PKCS7-----\n"
    # The certificate of the vectors began when they were made.
    now = here.certificates[0].not_valid_before_utc.timestamp() + 60
    assert here.attest(json.dumps({"rsa2048": armored}), KEY, now).machine.endswith("/i-0123456789abcdef0")
    detached = {
        "document": (VECTORS / "document.json").read_text(),
        "signature": (VECTORS / "signature.txt").read_text(),
    }
    assert here.attest(json.dumps(detached), KEY, now).machine.endswith("/i-0123456789abcdef0")


@pytest.mark.rule("instance.N1")
@pytest.mark.parametrize(
    "evidence",
    [
        "",
        "[]",
        '["document", "signature"]',
        "{",
        "{}",
        '{"document": "{}"}',
        '{"document": "{}", "signature": 7}',
        '{"document": "{}", "signature": "é"}',
        '{"document": "{}", "signature": "", "rsa2048": ""}',
        '{"document": "{}", "document": "{}", "signature": ""}',
        '{"document": "{}", "signature": "not base64!"}',
        '{"rsa2048": "' + "A" * MAX_BYTES + '"}',
        "[" * 100_000,
    ],
)
def test_what_is_no_evidence_is_refused(tmp_path: Path, cloud: Cloud, evidence: str) -> None:
    assert refused(attester(tmp_path, cloud), evidence) == "N1"


@pytest.mark.rule("instance.N2")
@pytest.mark.rule("cms.C5")
def test_a_document_that_another_has_signed_is_refused(tmp_path: Path, cloud: Cloud) -> None:
    here, other, document = attester(tmp_path, cloud), Cloud(), json.dumps(DOCUMENT)
    assert refused(here, other.signed(document)) == "N2"
    assert refused(here, other.message(document)) == "C5"
    forged = json.loads(cloud.signed(document)) | {"document": document.replace("i-1", "i-2")}
    assert refused(here, json.dumps(forged)) == "N2"


@pytest.mark.rule("instance.N2")
def test_a_certificate_that_has_ended_counts_no_more(tmp_path: Path) -> None:
    ended = Cloud(ends=2025)
    here = attester(tmp_path, ended)
    assert refused(here, ended.signed(json.dumps(DOCUMENT))) == "N2"
    assert refused(here, ended.message(json.dumps(DOCUMENT))) == "C5"


def test_a_short_key_or_no_certificate_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="at least 2048 bits"):
        attester(tmp_path, Cloud(1024))
    (tmp_path / "cloud.pem").write_text("nonsense")
    with pytest.raises(ConfigurationError, match="no certificate"):
        attesters_of([{"certificates": ["cloud.pem"], "accounts": ["1"]}], tmp_path / "instances.toml")


@pytest.mark.rule("instance.N3")
@pytest.mark.parametrize(
    "document",
    ["[]", "{", json.dumps({**DOCUMENT, "region": 7}), json.dumps({**DOCUMENT, "pendingTime": "yesterday"}), "{}"],
)
def test_a_document_that_does_not_name_the_machine_is_refused(tmp_path: Path, cloud: Cloud, document: str) -> None:
    assert refused(attester(tmp_path, cloud), cloud.signed(document)) == "N3"


@pytest.mark.rule("instance.N4")
def test_a_machine_of_another_account_is_refused(tmp_path: Path, cloud: Cloud) -> None:
    here = attester(tmp_path, cloud, accounts=["999999999999"])
    assert refused(here, cloud.signed(json.dumps(DOCUMENT))) == "N4"


@pytest.mark.rule("instance.N5")
@pytest.mark.parametrize("rule", [{"regions": ["us-east-1"]}, {"images": ["ami-2"]}, {"instances": ["i-2"]}])
def test_what_a_rule_lists_is_all_that_counts(tmp_path: Path, cloud: Cloud, rule: dict[str, Any]) -> None:
    assert refused(attester(tmp_path, cloud, **rule), cloud.signed(json.dumps(DOCUMENT))) == "N5"


@pytest.mark.rule("instance.N6")
def test_a_machine_that_was_started_long_ago_or_is_to_be_is_refused(tmp_path: Path, cloud: Cloud) -> None:
    here = attester(tmp_path, cloud, max_age="1d")
    assert refused(here, cloud.signed(json.dumps(DOCUMENT))) == "N6"
    assert refused(here, cloud.signed(json.dumps({**DOCUMENT, "pendingTime": "2027-11-01T08:00:00Z"}))) == "N6"


# Messages.


def element(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body)
    length = bytes([size]) if size < 0x80 else bytes([0x82]) + size.to_bytes(2, "big")
    return bytes([tag]) + length + body


SIGNED_DATA, DATA = bytes.fromhex("2a864886f70d010702"), bytes.fromhex("2a864886f70d010701")
SHA256, SHA1 = bytes.fromhex("608648016503040201"), bytes.fromhex("2b0e03021a")
RSA = bytes.fromhex("2a864886f70d010101")
CONTENT_TYPE, DIGEST = bytes.fromhex("2a864886f70d010903"), bytes.fromhex("2a864886f70d010904")


def attribute(name: bytes, *values: bytes) -> bytes:
    return element(0x30, element(0x06, name), element(0x31, *values))


def message(
    cloud: Cloud,
    *,
    outer: int = 0x30,
    kind: bytes = SIGNED_DATA,
    version: int = 0x02,
    encapsulated: int = 0x30,
    inner: bytes = DATA,
    contents: int = 1,
    content_tag: int = 0x04,
    signers: int = 1,
    signers_tag: int = 0x31,
    signer_tag: int = 0x30,
    hashing: bytes | None = SHA256,
    signing: bytes | None = RSA,
    signature_tag: int | None = 0x04,
    attributes: list[bytes] | None = None,
    twice: bool = False,
    indefinite: bool = False,
) -> str:
    """A signed message whose signature is right, whatever else is wrong with it."""
    content = json.dumps(DOCUMENT).encode()
    if attributes is None:
        attributes = [
            attribute(CONTENT_TYPE, element(0x06, DATA)),
            attribute(DIGEST, element(0x04, hashlib.sha256(content).digest())),
        ]
    body = element(0x0C, content) if content_tag == 0x24 else content
    signed = element(0x31, *attributes)
    told = b"\xa0\x80" + b"".join(attributes) + b"\0\0" if indefinite else b"\xa0" + signed[1:]
    signature = cloud.key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    signer = element(
        signer_tag,
        element(0x02, b"\1"),
        element(0x30),
        element(0x30, *([element(0x06, hashing)] if hashing else [])),
        *[told] * (2 if twice else 1),
        element(0x30, *([element(0x06, signing)] if signing else [])),
        *([element(signature_tag, signature)] if signature_tag else []),
    )
    fields = element(
        0x30,
        element(version, b"\1"),
        element(0x31),
        element(encapsulated, element(0x06, inner), element(0xA0, *[element(content_tag, body)] * contents)),
        element(signers_tag, *[signer] * signers),
    )
    return shown(element(outer, element(0x06, kind), element(0xA0, fields)))


def test_the_message_of_these_tests_is_read(tmp_path: Path, cloud: Cloud) -> None:
    assert attester(tmp_path, cloud).attest(message(cloud), KEY, NOW).environment == "production"


@pytest.mark.rule("cms.C1")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x30\x05\x06",
        b"\x30\x80",
        b"\x30\x80" * 40,
        b"\x1f\x00",
        b"\x30\x85\0\0\0\0\x80" + bytes(128),
        b"\x30\x81\x03\x06\x01\x00",
        b"\x30\x88" + b"\xff" * 8,
        b"\x30\x00\x00",
        b"\x30\x80" * 20_000,
        b"\x30\x09\x30\x05\x24\x80\x04\x01A\0\0",  # its end lies behind what it is in
    ],
)
def test_what_is_no_ber_is_refused(tmp_path: Path, cloud: Cloud, data: bytes) -> None:
    assert refused(attester(tmp_path, cloud), shown(data)) == "C1"


@pytest.mark.rule("cms.C1")
def test_what_follows_a_message_is_refused(tmp_path: Path, cloud: Cloud) -> None:
    data = base64.b64decode(json.loads(message(cloud))["rsa2048"])
    assert refused(attester(tmp_path, cloud), shown(data + b"\0")) == "C1"


@pytest.mark.rule("cms.C2")
@pytest.mark.parametrize(
    "change",
    [
        {"outer": 0x31},
        {"kind": DATA},
        {"version": 0x04},
        {"encapsulated": 0x31},
        {"inner": SIGNED_DATA},
        {"contents": 0},
        {"contents": 2},
        {"content_tag": 0x0C},
        {"content_tag": 0x24},
        {"signers": 0},
        {"signers": 2},
        {"signers_tag": 0x30},
        {"signer_tag": 0x31},
        {"signature_tag": None},
        {"signature_tag": 0x03},
        {"twice": True},
    ],
)
def test_what_is_no_signed_data_by_one_signer_is_refused(tmp_path: Path, cloud: Cloud, change: dict[str, Any]) -> None:
    assert refused(attester(tmp_path, cloud), message(cloud, **change)) == "C2"


@pytest.mark.rule("cms.C2")
def test_other_structures_are_refused(tmp_path: Path, cloud: Cloud) -> None:
    here = attester(tmp_path, cloud)
    empty = element(0x30, element(0x06, SIGNED_DATA), element(0xA0, element(0x30)))
    for data in (element(0x30), element(0x04, b"x"), element(0x30, element(0x06, SIGNED_DATA), element(0xA0)), empty):
        assert refused(here, shown(data)) == "C2"


@pytest.mark.rule("cms.C3")
@pytest.mark.parametrize("change", [{"hashing": SHA1}, {"hashing": None}, {"signing": SHA256}, {"signing": None}])
def test_another_digest_or_signature_is_refused(tmp_path: Path, cloud: Cloud, change: dict[str, Any]) -> None:
    assert refused(attester(tmp_path, cloud), message(cloud, **change)) == "C3"


@pytest.mark.rule("cms.C4")
@pytest.mark.parametrize("which", ["none", "other digest", "two digests", "other type", "no type"])
def test_signed_attributes_that_are_not_about_the_content_are_refused(tmp_path: Path, cloud: Cloud, which: str) -> None:
    right = element(0x04, hashlib.sha256(json.dumps(DOCUMENT).encode()).digest())
    about, kind = attribute(DIGEST, right), attribute(CONTENT_TYPE, element(0x06, DATA))
    attributes = {
        "none": [],
        "other digest": [kind, attribute(DIGEST, element(0x04, bytes(32)))],
        "two digests": [kind, about, attribute(DIGEST, element(0x04, bytes(32)))],
        "other type": [attribute(CONTENT_TYPE, element(0x06, SIGNED_DATA)), about],
        "no type": [about],
    }
    here = attester(tmp_path, cloud)
    assert refused(here, message(cloud, attributes=attributes[which])) == "C4"
    assert refused(here, message(cloud, indefinite=True)) == "C4"


# Files.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"must hold tables \[\[instance\]\]"),
        ("x = 1\n", r"must hold tables \[\[instance\]\]"),
        ("[[instance]]\n", "certificates: Field required"),
        ('[[instance]]\ncertificates = ["cloud.pem"]\naccounts = []\n', "accounts"),
        ('[[instance]]\ncertificates = ["cloud.pem"]\naccounts = ["1"]\nany = 1\n', "any: Extra inputs"),
        ('[[instance]]\ncertificates = ["missing.pem"]\naccounts = ["1"]\n', "missing.pem cannot be read"),
        ("[[", "not valid TOML"),
    ],
)
def test_a_list_of_machines_that_cannot_be_used_is_named(tmp_path: Path, cloud: Cloud, text: str, said: str) -> None:
    (tmp_path / "cloud.pem").write_bytes(cloud.pem())
    (tmp_path / "instances.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        read_attesters(tmp_path / "instances.toml")


def test_an_identity_document_that_is_no_text_or_too_long_is_named(tmp_path: Path) -> None:
    path = tmp_path / "instance.json"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read_instance(path)
    path.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(ConfigurationError, match="larger than"):
        read_instance(path)
