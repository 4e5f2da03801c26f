"""Ed25519 keys and their names."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from exequatur.statements.encoding import compact_json, digest, from_base64url, to_base64url
from exequatur.statements.models import PublicKey

_SMALL_ORDER = frozenset(
    bytes.fromhex(each)
    for each in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""The y coordinates of points whose order divides eight, in every encoding that libraries take (RFC 8032, 5.1.3)."""


@lru_cache(maxsize=1024)
def thumbprint(x: str) -> str:
    """The JWK thumbprint of an Ed25519 key (RFC 7638, RFC 8037 appendix A.3); it is the key's ``kid``.

    Args:
        x: The public key, base64url.
    """
    return digest(compact_json({"crv": "Ed25519", "kty": "OKP", "x": x}))


class Signer(Protocol):
    """What signing needs of a key; the private part may live elsewhere, for example in a KMS or an HSM."""

    @property
    def kid(self) -> str:
        """The key's :func:`thumbprint`."""
        ...

    @property
    def x(self) -> str:
        """The public key: its 32 bytes, base64url without padding."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Sign with Ed25519 (RFC 8032), not prehashed.

        Args:
            data: What is signed, some KiB.

        Returns:
            The 64 bytes of the signature.
        """
        ...


class SigningKey:
    """An Ed25519 private key in memory."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.x = to_base64url(private.public_key().public_bytes_raw())
        self.kid = thumbprint(self.x)

    @classmethod
    def generate(cls) -> SigningKey:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: bytes | None = None) -> SigningKey:
        """Read a PKCS #8 key.

        Args:
            pem: The key.
            passphrase: That it is encrypted with; ``None`` for one that is not encrypted.

        Raises:
            ValueError: ``pem`` is not one, not for Ed25519, or encrypted with another passphrase or none.
        """
        wanted = "an unencrypted PEM private key" if passphrase is None else "a PEM key encrypted with this passphrase"
        try:
            key = serialization.load_pem_private_key(pem, password=passphrase)
        except Exception as err:  # cryptography raises several types for one cause
            raise ValueError(f"not {wanted}") from err
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("not an Ed25519 key")
        return cls(key)

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        """Write a PKCS #8 key, encrypted where there is a passphrase."""
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase is not None:
            encryption = serialization.BestAvailableEncryption(passphrase)
        return self._private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)

    @cached_property
    def public(self) -> PublicKey:
        return PublicKey(x=self.x)

    def sign(self, data: bytes) -> bytes:
        return self._private.sign(data)

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid!r})"


def verify_signature(x: str, signature: bytes, data: bytes) -> bool:
    """Whether ``signature`` over ``data`` is by the key (RFC 8032).

    A key or a first half of a signature that is a point of small order is refused: under such a key one signature fits
    many messages, and libraries differ in whether they take it. Browsers do not (Web Cryptography, Ed25519, "Verify").
    """
    try:
        public = from_base64url(x)
        if _is_small(public) or _is_small(signature[:32]):  # [V7]
            return False
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def _is_small(point: bytes) -> bool:
    """Whether a point is of small order, whatever the sign of its x coordinate."""
    return len(point) == 32 and point[:31] + bytes([point[31] & 0x7F]) in _SMALL_ORDER


def warm_up() -> None:
    """Run one verification that fails.

    The first failing one imports ``cryptography.exceptions``. Inside Temporal's workflow sandbox that import aborts the
    process, so it has to happen before.
    """
    key = SigningKey.generate()
    if verify_signature(key.x, bytes(64), b""):
        raise RuntimeError("Ed25519 accepted a zero signature")
