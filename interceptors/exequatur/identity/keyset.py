"""A set of public keys that verify tokens (RFC 7517, RFC 7518), and which of them verifies one.

Signatures are verified by joserfc. Rules, numbered as the code marks them:

K1  Only asymmetric algorithms, by an allow-list. ``none`` and HMAC are not on it and cannot be put on it (RFC 8725,
    section 3.1), so that no public key is ever taken for an HMAC secret.
K2  A key is one of RSA of at least 2048 bits, P-256, P-384, P-521 or Ed25519. Others are passed over, and so is one
    with private or symmetric parts: it is no secret any more.
K3  A key verifies only by algorithms of its own type and curve, and only by the one that it names in ``alg`` if it
    names one (RFC 8725, section 3.2); with ``use`` or ``key_ops``, only if they are for signatures.
K4  A token that names a key is verified by that key. One that names none is verified only if there is exactly one key
    for its algorithm.
K5  Where two keys of one id fit, none is used.
K6  The signature verifies with that key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from exequatur.errors import ConfigurationError, IdentityError
from exequatur.identity.tokens import Signed
from exequatur.statements.encoding import from_base64url

try:
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, OKPKey, RSAKey
    from joserfc.jws import JWSRegistry
except ImportError as err:  # pragma: no cover
    raise ConfigurationError("Tokens are verified by joserfc; run: pip install 'exequatur[identity]'") from err

ALGORITHMS: Mapping[str, tuple[str, str | None]] = {
    "RS256": ("RSA", None),
    "RS384": ("RSA", None),
    "RS512": ("RSA", None),
    "PS256": ("RSA", None),
    "PS384": ("RSA", None),
    "PS512": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519"),
}
"""Key type and curve by algorithm (RFC 7518, section 3.1; RFC 8037, section 3.1; RFC 9864, section 2.2)."""
MAX_KEYS = 256
MIN_RSA_BITS = 2048
_MAX_RSA_BITS = 8192
"""Longer ones only cost time."""
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_PARTS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_KINDS: Mapping[str, type[RSAKey] | type[ECKey] | type[OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}


@dataclass(frozen=True)
class Key:
    """One public key.

    Args:
        kid: Its id, if it has one.
        kind: ``kty``.
        curve: ``crv``; ``None`` for RSA.
        algorithm: The only one that it is for, if it says so.
        key: As joserfc has it.
    """

    kid: str | None
    kind: str
    curve: str | None
    algorithm: str | None
    key: RSAKey | ECKey | OKPKey = field(repr=False)

    def fits(self, algorithm: str) -> bool:
        """K3."""
        return ALGORITHMS[algorithm] == (self.kind, self.curve) and self.algorithm in (None, algorithm)


@dataclass(frozen=True)
class KeySet:
    """The usable keys of a JWK set."""

    keys: tuple[Key, ...]

    @classmethod
    def of(cls, document: Any, *, use: str = "sig") -> KeySet:
        """Read a JWK set; what is no usable key in it is passed over (RFC 7517, section 5).

        Args:
            document: The JSON value.
            use: What ``use`` the keys say that they are for; a SPIFFE bundle says ``jwt-svid``.

        Raises:
            ValueError: It is no JWK set, or has more than :data:`MAX_KEYS`.
        """
        keys = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(keys, list):
            raise ValueError("it is not a JWK set, an object with a list of keys")
        if len(keys) > MAX_KEYS:
            raise ValueError(f"it has {len(keys)} keys, more than {MAX_KEYS}")
        return cls(tuple(key for each in keys if (key := _key(each, use)) is not None))

    def knows(self, token: Signed) -> bool:
        """Whether the key that a token names is here; one that names none has nothing that could be looked for."""
        kid = token.header.get("kid")
        return kid is None or any(key.kid == kid for key in self.keys)

    def verify(self, token: Signed, algorithms: Sequence[str]) -> None:
        """Verify a token's signature.

        Args:
            token: What was read.
            algorithms: Those that may be, of :data:`ALGORITHMS`.

        Raises:
            IdentityError: K1, K3 to K6.
        """
        algorithm, kid = token.header.get("alg"), token.header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in algorithms or algorithm not in ALGORITHMS:  # [K1]
            allowed = ", ".join(algorithms)
            raise IdentityError("K1", f"The token is signed by an algorithm that is not allowed here ({allowed} are)")
        named = [key for key in self.keys if kid is None or key.kid == kid]  # K4
        if not named:  # [K4]
            raise IdentityError("K4", "The token names a key that its issuer does not publish; check who issued it")
        fitting = [key for key in named if key.fits(algorithm)]
        if not fitting:  # [K3]
            raise IdentityError("K3", "The token's key is not for the algorithm that it is signed by")
        if len(fitting) > 1 and kid is None:  # [K4]
            raise IdentityError("K4", "The token does not name its key, and there are several")
        if len(fitting) > 1:  # [K5]
            raise IdentityError("K5", "The issuer publishes several keys under the id that the token names")
        found = fitting[0].key
        model = JWSRegistry.algorithms[algorithm]
        try:
            model.check_key(found)
            good = model.verify(token.signed, token.signature, found)
        except (JoseError, ValueError):
            good = False
        if not good:  # [K6]
            raise IdentityError("K6", "The token's signature is wrong")


def _key(document: Any, use: str) -> Key | None:
    """One usable key (K2, K3), or ``None``."""
    if not isinstance(document, dict):
        return None
    kind = document.get("kty")
    if not isinstance(kind, str) or kind not in _KINDS or _PRIVATE & document.keys():  # [K2]
        return None
    operations = document.get("key_ops", ["verify"])
    if document.get("use", use) != use or not isinstance(operations, list) or "verify" not in operations:  # [K3]
        return None
    parts = {name: document.get(name) for name in _PARTS[kind]}
    kid: Any = document.get("kid")
    algorithm: Any = document.get("alg")
    texts = (*parts.values(), *(each for each in (kid, algorithm) if each is not None))
    if not all(isinstance(each, str) and len(each) <= 4096 for each in texts):
        return None
    if kind == "RSA" and not MIN_RSA_BITS <= _bits(parts["n"]) <= _MAX_RSA_BITS:  # [K2]
        return None
    try:
        key = _KINDS[kind].import_key({"kty": kind, **{name: str(part) for name, part in parts.items()}})
    except (JoseError, ValueError, KeyError, TypeError):
        return None
    curve = parts.get("crv")
    if (kind, curve) not in ALGORITHMS.values():  # [K2]
        return None
    return Key(kid, kind, curve, algorithm, key)


def _bits(modulus: Any) -> int:
    """The length of an RSA key; none where it cannot be read."""
    try:
        return int.from_bytes(from_base64url(modulus)).bit_length()
    except ValueError:
        return 0
