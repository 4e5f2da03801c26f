"""A key management service for tests: another process that holds the key and signs what it is asked to.

The child speaks lines of hex over its pipes, as a KMS would speak HTTP. What is here is what a user writes to use one:
a class with ``kid``, ``x`` and ``sign``, and a function that makes it.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache

from exequatur.statements.keys import SigningKey, thumbprint

_CHILD = """
import sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(sys.argv[1]))
print(key.public_key().public_bytes_raw().hex(), flush=True)
for line in sys.stdin:
    print(key.sign(bytes.fromhex(line)).hex(), flush=True)
"""
SEEDS = {"first": "11" * 32, "second": "22" * 32}


class Kms:
    """A key in another process."""

    def __init__(self, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, SEEDS[name]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.x = _base64url(bytes.fromhex(self._answer()))
        self.kid = thumbprint(self.x)
        self.asked = 0

    def sign(self, data: bytes) -> bytes:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{data.hex()}\n")
        self.process.stdin.flush()
        self.asked += 1
        return bytes.fromhex(self._answer())

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        self.process.terminate()
        self.process.communicate()


def _base64url(data: bytes) -> str:
    from exequatur.statements.encoding import to_base64url

    return to_base64url(data)


@cache
def signer(name: str = "first") -> Kms:
    """What the ring names. One process for each key."""
    return Kms(name)


# Signers that are none.

OTHER = SigningKey.generate()


class Changed:
    """The first key's name on another's signatures, once it has been believed."""

    def __init__(self, believed: int) -> None:
        real = SigningKey.generate()
        self.kid, self.x, self._real, self._left = real.kid, real.x, real, believed

    def sign(self, data: bytes) -> bytes:
        self._left -= 1
        if self._left >= 0:
            return self._real.sign(data)
        return OTHER.sign(data)


def impostor() -> Changed:
    return Changed(0)


@cache
def traitor() -> Changed:
    return Changed(1)


def misnamed() -> object:
    key = SigningKey.generate()
    key.kid = OTHER.kid
    return key


def away() -> object:
    raise TimeoutError("the KMS does not answer")


def nothing() -> None:
    return None


def text() -> object:
    class Wordy:
        kid, x = OTHER.kid, OTHER.x

        def sign(self, data: bytes) -> str:
            return "signed"

    return Wordy()
