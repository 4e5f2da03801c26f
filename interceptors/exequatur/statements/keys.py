"""Ed25519 keys and their names."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from exequatur.statements.encoding import compact_json, digest, from_base64url, to_base64url
from exequatur.statements.models import PublicKey


@lru_cache(maxsize=1024)
def thumbprint(x: str) -> str:
    """The JWK thumbprint of an Ed25519 key (RFC 7638, RFC 8037 appendix A.3); it is the key's ``kid``.

    Args:
        x: The public key, base64url.
    """
    return digest(compact_json({"crv": "Ed25519", "kty": "OKP", "x": x}))


class Signer(Protocol):
    """What signing needs of a key; the private part may live elsewhere."""

    @property
    def kid(self) -> str: ...

    @property
    def x(self) -> str: ...

    def sign(self, data: bytes) -> bytes: ...


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
    def from_pem(cls, pem: bytes) -> SigningKey:
        """Read an unencrypted PKCS #8 key.

        Raises:
            ValueError: ``pem`` is not one, or not for Ed25519.
        """
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except Exception as err:  # cryptography raises several types for one cause
            raise ValueError("not an unencrypted PEM private key") from err
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("not an Ed25519 key")
        return cls(key)

    def to_pem(self) -> bytes:
        return self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @cached_property
    def public(self) -> PublicKey:
        return PublicKey(x=self.x)

    def sign(self, data: bytes) -> bytes:
        return self._private.sign(data)

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid!r})"


def verify_signature(x: str, signature: bytes, data: bytes) -> bool:
    """Whether ``signature`` over ``data`` is by the key (RFC 8032)."""
    try:
        Ed25519PublicKey.from_public_bytes(from_base64url(x)).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def warm_up() -> None:
    """Run one verification that fails.

    The first failing one imports ``cryptography.exceptions``. Inside Temporal's workflow sandbox that import aborts the
    process, so it has to happen before.
    """
    key = SigningKey.generate()
    if verify_signature(key.x, bytes(64), b""):
        raise RuntimeError("Ed25519 accepted a zero signature")
