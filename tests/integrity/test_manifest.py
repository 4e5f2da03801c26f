"""A manifest counts if a key that is trusted for manifests has signed exactly what it says."""

import base64
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exequatur.errors import ConfigurationError, StatementError
from exequatur.integrity import envelope
from exequatur.integrity.attestation import EvidenceConfig, verify_evidence
from exequatur.integrity.envelope import encoded, opened, seal
from exequatur.integrity.instance import Attested
from exequatur.integrity.keys import (
    KEY_NAME,
    TYP,
    ManifestKeys,
    make_manifest_key,
    read_manifest_key,
    read_manifest_keys,
)
from exequatur.integrity.manifest import (
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    Interpreter,
    Measurement,
    measurement_json,
    sign_manifest,
    verify_manifest,
)
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Grant, PublicKey
from exequatur.statements.trust import Anchor

NOW = 1_800_000_000.0
KEY = SigningKey.generate()
HASH = "0" * 64
MEASURED = Measurement(
    interpreter=Interpreter(implementation="cpython", version="3.12.1", executable=HASH, standard={}, flags={}),
    distributions={},
    extra={},
    sources={"/app": {"b.py": HASH, "a.py": HASH}},
    configuration={},
    environment={"MODE": None},
    image=f"sha256:{HASH}",
    build="b1",
)


def keys(*signers: SigningKey, nbf: float = 0.0, exp: float | None = None) -> ManifestKeys:
    return ManifestKeys(
        {each.kid: Anchor(kid=each.kid, x=each.x, typ=(TYP,), iss="tests", nbf=nbf, exp=exp) for each in signers}
    )


def refused(verify: Callable[[], Any]) -> str:
    with pytest.raises(StatementError) as error:
        verify()
    return error.value.rule


def test_the_encoding_that_is_signed_is_that_of_the_dsse_protocol() -> None:
    """The test vector of https://github.com/secure-systems-lab/dsse/blob/master/protocol.md."""
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert encoded("http://example.com/HelloWorld", b"hello world") == expected


def test_a_signed_manifest_verifies_and_names_its_code() -> None:
    text = sign_manifest(MEASURED, "worker", KEY)
    found = verify_manifest(text, keys(KEY), NOW)
    assert (found.name, found.key, found.measurement) == ("worker", KEY.kid, MEASURED)
    # Another signature over the same code is the same code.
    again = sign_manifest(MEASURED, "worker", SigningKey.generate(), KEY)
    assert verify_manifest(again, keys(KEY), NOW).digest == found.digest
    statement = json.loads(base64.b64decode(json.loads(text)["payload"]))
    assert statement["_type"] == STATEMENT_TYPE
    assert statement["predicateType"] == PREDICATE_TYPE
    assert statement["subject"][0]["digest"]["sha256"] == hashlib.sha256(measurement_json(MEASURED)).hexdigest()


@pytest.mark.rule("envelope.E1")
def test_an_envelope_that_is_too_long_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = sign_manifest(MEASURED, "worker", KEY)
    monkeypatch.setattr(envelope, "MAX_BYTES", len(text) - 1)
    assert refused(lambda: opened(text, PAYLOAD_TYPE, keys(KEY), NOW)) == "E1"


@pytest.mark.rule("envelope.E2")
@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "[" * 100_000, '{"payload": "", "payload": "", "payloadType": "x", "signatures": []}', "\ud800"],
)
def test_what_is_no_envelope_is_refused(text: str) -> None:
    assert refused(lambda: opened(text, PAYLOAD_TYPE, keys(KEY), NOW)) == "E2"


@pytest.mark.rule("envelope.E2")
def test_an_envelope_with_something_more_is_refused() -> None:
    text = json.dumps(json.loads(sign_manifest(MEASURED, "worker", KEY)) | {"more": 1})
    assert refused(lambda: opened(text, PAYLOAD_TYPE, keys(KEY), NOW)) == "E2"


@pytest.mark.rule("envelope.E3")
def test_another_type_of_payload_is_refused() -> None:
    text = seal("application/json", b"{}", [KEY])
    assert refused(lambda: opened(text, PAYLOAD_TYPE, keys(KEY), NOW)) == "E3"


@pytest.mark.rule("envelope.E4")
@pytest.mark.parametrize("payload", ["e30", "e31=", "e3 0=", "é", "e30=\n"])
def test_a_payload_that_is_not_canonical_base64_is_refused(payload: str) -> None:
    text = json.dumps(json.loads(seal(PAYLOAD_TYPE, b"{}", [KEY])) | {"payload": payload})
    assert refused(lambda: opened(text, PAYLOAD_TYPE, keys(KEY), NOW)) == "E4"


@pytest.mark.rule("envelope.E5")
@pytest.mark.rule("manifest.M1")
def test_a_manifest_that_no_trusted_key_signed_is_refused() -> None:
    text, other = sign_manifest(MEASURED, "worker", KEY), SigningKey.generate()
    assert refused(lambda: verify_manifest(text, keys(other), NOW)) == "E5"
    assert refused(lambda: verify_manifest(text, keys(), NOW)) == "E5"
    assert refused(lambda: verify_manifest(text, keys(KEY, nbf=NOW + 1), NOW)) == "E5"
    assert refused(lambda: verify_manifest(text, keys(KEY, exp=NOW), NOW)) == "E5"
    stripped = json.dumps(json.loads(text) | {"signatures": []})
    assert refused(lambda: verify_manifest(stripped, keys(KEY), NOW)) == "E5"


@pytest.mark.rule("envelope.E5")
def test_a_changed_payload_or_signature_is_refused() -> None:
    said = json.loads(sign_manifest(MEASURED, "worker", KEY))
    other = json.loads(sign_manifest(MEASURED.model_copy(update={"build": "b2"}), "worker", KEY))
    assert refused(lambda: verify_manifest(json.dumps({**said, "payload": other["payload"]}), keys(KEY), NOW)) == "E5"
    # A signature over the bare payload is none over the envelope.
    bare = base64.b64encode(KEY.sign(base64.b64decode(said["payload"]))).decode()
    forged = {**said, "signatures": [{"keyid": KEY.kid, "sig": bare}]}
    assert refused(lambda: verify_manifest(json.dumps(forged), keys(KEY), NOW)) == "E5"


@pytest.mark.rule("envelope.E6")
def test_an_envelope_with_very_many_signatures_is_refused() -> None:
    said = json.loads(sign_manifest(MEASURED, "worker", KEY))
    many = json.dumps({**said, "signatures": said["signatures"] * 17})
    assert refused(lambda: verify_manifest(many, keys(KEY), NOW)) == "E6"


def statement(**changes: Any) -> str:
    """A signed statement that says something else."""
    said = json.loads(base64.b64decode(json.loads(sign_manifest(MEASURED, "worker", KEY))["payload"]))
    return seal(PAYLOAD_TYPE, json.dumps(said | changes).encode(), [KEY])


@pytest.mark.rule("manifest.M2")
@pytest.mark.parametrize(
    "changes",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"predicateType": "https://slsa.dev/provenance/v1"},
        {"predicate": {}},
        {"predicate": json.loads(measurement_json(MEASURED)) | {"more": 1}},
        {"predicate": json.loads(measurement_json(MEASURED)) | {"image": "latest"}},
        {"more": 1},
        {"subject": []},
    ],
)
def test_a_statement_of_another_kind_is_refused(changes: dict[str, Any]) -> None:
    assert refused(lambda: verify_manifest(statement(**changes), keys(KEY), NOW)) == "M2"


@pytest.mark.rule("manifest.M2")
@pytest.mark.parametrize("payload", [b"", b"\xff", b"[]", b'{"_type": 1, "_type": 2}', b"[" * 100_000])
def test_a_payload_that_is_no_statement_is_refused(payload: bytes) -> None:
    assert refused(lambda: verify_manifest(seal(PAYLOAD_TYPE, payload, [KEY]), keys(KEY), NOW)) == "M2"


@pytest.mark.rule("manifest.M3")
def test_a_subject_with_another_digest_than_what_was_measured_is_refused() -> None:
    subject = [{"name": "worker", "digest": {"sha256": HASH}}]
    assert refused(lambda: verify_manifest(statement(subject=subject), keys(KEY), NOW)) == "M3"


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_arbitrary_text_is_refused_and_nothing_else(text: str) -> None:
    assert refused(lambda: verify_manifest(text, keys(KEY), NOW)).startswith("E")


# What an authority believes.


class Believes:
    def attest(self, evidence: str, key: PublicKey, now: float) -> Attested:
        if evidence != "genuine":
            raise StatementError("N2", "Nobody has signed it")
        return Attested("machine", "production")


def test_a_worker_that_shows_nothing_is_unmeasured() -> None:
    found = verify_evidence(None, None, EvidenceConfig(keys(KEY), [Believes()]), key=KEY.public, now=NOW)
    assert found.facts() == {"integrity": "unmeasured"}


@pytest.mark.rule("attestation.V1")
def test_a_manifest_that_does_not_verify_is_not_as_if_there_were_none() -> None:
    text = sign_manifest(MEASURED, "worker", SigningKey.generate())
    config = EvidenceConfig(keys(KEY))
    assert refused(lambda: verify_evidence(text, None, config, key=KEY.public, now=NOW)) == "E5"


@pytest.mark.rule("attestation.V2")
def test_a_document_that_nobody_believes_is_not_as_if_there_were_none() -> None:
    config = EvidenceConfig(keys(KEY), [Believes(), Believes()])
    assert refused(lambda: verify_evidence(None, "forged", config, key=KEY.public, now=NOW)) == "N2"


@pytest.mark.rule("attestation.V3")
def test_code_is_attested_only_with_a_machine() -> None:
    text, config = sign_manifest(MEASURED, "worker", KEY), EvidenceConfig(keys(KEY), [Believes()])
    alone = verify_evidence(text, None, config, key=KEY.public, now=NOW)
    assert alone.code is not None
    assert (alone.integrity, alone.code.assurance, alone.environment) == ("measured", "self-asserted", None)
    both = verify_evidence(text, "genuine", config, key=KEY.public, now=NOW)
    assert both.facts() == {
        "integrity": "attested",
        "code": alone.code.digest,
        "build": "b1",
        "environment": "production",
        "image": f"sha256:{HASH}",
    }
    machine = verify_evidence(None, "genuine", config, key=KEY.public, now=NOW)
    assert machine.facts() == {"integrity": "unmeasured", "environment": "production"}


@pytest.mark.rule("attestation.V4")
def test_what_nobody_can_verify_counts_as_not_shown() -> None:
    found = verify_evidence("anything", "anything", EvidenceConfig(), key=KEY.public, now=NOW)
    assert found.facts() == {"integrity": "unmeasured"}


# Keys.


def test_a_made_key_signs_and_is_trusted(tmp_path: Path) -> None:
    trusted = tmp_path / "keys.jwks"
    first = make_manifest_key(tmp_path / "one", trusted, "release team")
    second = make_manifest_key(tmp_path / "two", trusted, "release team")
    assert read_manifest_key(tmp_path / "one" / KEY_NAME).kid == first.kid
    assert set(read_manifest_keys(trusted).anchors) == {first.kid, second.kid}
    assert verify_manifest(sign_manifest(MEASURED, "worker", first), read_manifest_keys(trusted), time.time())
    with pytest.raises(ConfigurationError, match="there is a key already"):
        make_manifest_key(tmp_path / "one", trusted, "release team")


def test_a_key_file_that_others_read_is_refused(tmp_path: Path) -> None:
    make_manifest_key(tmp_path, tmp_path / "keys.jwks", "tests")
    (tmp_path / KEY_NAME).chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod go-rwx"):
        read_manifest_key(tmp_path / KEY_NAME)


def anchor(**changes: Any) -> dict[str, Any]:
    return {"kty": "OKP", "crv": "Ed25519", "kid": KEY.kid, "x": KEY.x, "typ": [TYP], "iss": "t", "nbf": 0, **changes}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"keys": 1}',
        '{"keys": []}',
        json.dumps({"keys": [anchor(typ=[Grant.typ])]}),
        json.dumps({"keys": [anchor(kid="A" * 43)]}),
        json.dumps({"keys": [anchor(d="secret")]}),
        json.dumps({"keys": [anchor(), anchor()]}),
        SigningKey.generate().to_pem().decode(),
        "[" * 100_000,
    ],
)
def test_a_file_that_is_no_set_of_manifest_keys_is_refused(tmp_path: Path, text: str) -> None:
    """A key that signs grants is none that signs manifests."""
    (tmp_path / "keys.jwks").write_text(text)
    with pytest.raises(ConfigurationError):
        read_manifest_keys(tmp_path / "keys.jwks")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_manifest_keys(tmp_path / "missing.jwks")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        read_manifest_keys(tmp_path)
