"""Test vectors from the RFCs, and from the same sources the bytes that must never change."""

import contextlib
import hashlib

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from exequatur.statements.encoding import (
    MAX_DEPTH,
    compact_json,
    digest,
    from_base64url,
    strict_json,
    to_base64url,
)
from exequatur.statements.keys import SigningKey, thumbprint, verify_signature, warm_up
from exequatur.statements.models import RequestCore

# RFC 8037, appendix A.1, A.2, A.3, A.4
D = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
X = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
SIGNING_INPUT = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
SIGNATURE = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"


@pytest.fixture
def key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.from_private_bytes(from_base64url(D)))


def test_the_public_key_is_that_of_rfc_8037(key: SigningKey) -> None:
    assert key.x == X


def test_the_thumbprint_is_that_of_rfc_8037(key: SigningKey) -> None:
    assert thumbprint(X) == key.kid == THUMBPRINT


def test_the_thumbprint_hashes_what_rfc_7638_says() -> None:
    # Required members only, in lexicographic order, without white space (RFC 7638, section 3).
    canonical = f'{{"crv":"Ed25519","kty":"OKP","x":"{X}"}}'
    assert compact_json({"crv": "Ed25519", "kty": "OKP", "x": X}) == canonical.encode()
    assert digest(canonical) == THUMBPRINT


def test_the_signature_is_that_of_rfc_8037(key: SigningKey) -> None:
    assert to_base64url(key.sign(SIGNING_INPUT.encode())) == SIGNATURE
    assert verify_signature(X, from_base64url(SIGNATURE), SIGNING_INPUT.encode())
    assert not verify_signature(X, from_base64url(SIGNATURE), SIGNING_INPUT.encode() + b"x")


SMALL = (
    *("00" * 32, "01" + "00" * 31, "00" * 31 + "80"),
    *("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", "ec" + "ff" * 30 + "7f", "ee" + "ff" * 31),
)
"""Points of small order, as "Taming the many EdDSAs" (Chalkias and others, 2020) lists them."""


@pytest.mark.rule("V7")
def test_no_key_of_small_order_signs_anything() -> None:
    taken = 0
    for x in map(bytes.fromhex, SMALL):
        for first in map(bytes.fromhex, SMALL):
            for number in range(16):
                signature, data = first + bytes(32), b"%d" % number
                assert not verify_signature(to_base64url(x), signature, data)
                with contextlib.suppress(InvalidSignature, ValueError):
                    Ed25519PublicKey.from_public_bytes(x).verify(signature, data)
                    taken += 1
    assert taken > 10  # by a library that is not asked for more
    # The neutral element as a key: the base point, and 1, are a signature of everything.
    neutral, base = bytes.fromhex("01" + "00" * 31), bytes.fromhex("58" + "66" * 31)
    signature = base + (1).to_bytes(32, "little")
    Ed25519PublicKey.from_public_bytes(neutral).verify(signature, b"anything")
    assert not verify_signature(to_base64url(neutral), signature, b"anything")


@pytest.mark.rule("V7")
def test_a_signature_that_begins_with_a_point_of_small_order_is_refused() -> None:
    # Who has the private key can make one: r = 0, so R is the neutral element and S = h a.
    private = hashlib.sha512(from_base64url(D)).digest()[:32]
    a = int.from_bytes(private, "little") & ((1 << 254) - 8) | 1 << 254
    order = 2**252 + 27742317777372353535851937790883648493
    neutral, data = bytes.fromhex("01" + "00" * 31), b"data"
    h = int.from_bytes(hashlib.sha512(neutral + from_base64url(X) + data).digest(), "little")
    signature = neutral + (h * a % order).to_bytes(32, "little")
    Ed25519PublicKey.from_public_bytes(from_base64url(X)).verify(signature, data)
    assert not verify_signature(X, signature, data)


def test_a_key_survives_being_written_and_read(key: SigningKey) -> None:
    assert SigningKey.from_pem(key.to_pem()).x == X


def test_a_key_does_not_show_its_private_part(key: SigningKey) -> None:
    assert repr(key) == f"SigningKey(kid='{THUMBPRINT}')"


@pytest.mark.parametrize("pem", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_refused(pem: bytes) -> None:
    with pytest.raises(ValueError, match="not an unencrypted PEM private key"):
        SigningKey.from_pem(pem)


def test_a_key_for_another_algorithm_is_refused() -> None:
    pem = X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(ValueError, match="not an Ed25519 key"):
        SigningKey.from_pem(pem)


def test_a_first_verification_that_fails_does_no_harm() -> None:
    warm_up()


# RFC 7515, appendix C, and RFC 4648, section 10 without padding.
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (bytes([3, 236, 255, 224, 193]), "A-z_4ME"),
        (b"", ""),
        (b"f", "Zg"),
        (b"fo", "Zm8"),
        (b"foo", "Zm9v"),
        (b"foob", "Zm9vYg"),
        (b"fooba", "Zm9vYmE"),
        (b"foobar", "Zm9vYmFy"),
    ],
)
def test_base64url_is_that_of_rfc_7515(data: bytes, text: str) -> None:
    assert to_base64url(data) == text
    assert from_base64url(text) == data


@pytest.mark.parametrize(
    "text", ["Zg==", "Zg=", "Z", "Zh", "Zm9v\n", " Zm9v", "Zm+v", "Zm/v", "Zmé", "Zm9vZ", "\ud800"]
)
def test_base64url_has_one_text_for_one_value(text: str) -> None:
    with pytest.raises(ValueError, match="base64url"):
        from_base64url(text)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'[{"b":{"a":1,"a":2}}]',
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 5000,
        b"01",
        b"{'a':1}",
        b"[1,]",
        b'"\x01"',
        b"{}{}",
    ],
    ids=lambda data: repr(data[:20]),
)
def test_json_that_could_be_read_in_two_ways_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        strict_json(data)


@pytest.mark.parametrize("pair", [(b"[", b"]"), (b'{"a":', b"}")], ids=["arrays", "objects"])
def test_json_is_as_deep_as_we_say_and_not_as_the_interpreter_can(pair: tuple[bytes, bytes]) -> None:
    def nested(levels: int) -> bytes:
        return pair[0] * levels + b"1" + pair[1] * levels

    strict_json(nested(MAX_DEPTH))
    with pytest.raises(ValueError, match="nested too deeply"):
        strict_json(nested(MAX_DEPTH + 1))
    strict_json(b"[" + b",".join([nested(2)] * MAX_DEPTH) + b"]")  # many brackets, few levels


def test_the_hash_of_a_request_core_is_the_documented_one() -> None:
    core = RequestCore(
        grant=digest("g"), workflow_id="w é", original_run_id="r", seq=7, activity_type="charge", prev=digest("p")
    )
    text = f'["exequatur request core v1","{digest("g")}","w é","r",7,"charge","{digest("p")}"]'
    assert core.hash() == digest(text)
