"""Signed notes (C2SP signed-note v1): a text, and below it lines that say who signed it.

::

    example.org/notary
    the text, any number of lines

    — example.org/notary <base64 of key id and signature>

A note is the container of checkpoints. What a signature of another type than Ed25519 covers is that type's business:
:func:`bodies_by` gives what a key has put there, see :mod:`exequatur.lineage.checkpoint` for cosignatures. Pure.

Rules, numbered as the code marks them:

N1  A note has at most 256 KiB and 100 signatures. Checked before anything is decoded.
N2  It is UTF-8 without control characters other than newline.
N3  It is a text that ends in a newline, an empty line, and at least one signature line. The last empty line separates.
N4  A signature line is an em dash, a space, a key name, a space and base64; it ends in a newline.
N5  A key name is not empty and has neither spaces nor plus signs.
N6  The base64 is canonical and holds a key id and at least one byte more.
N7  A signature is attributed by key name *and* key id. Those of keys that the verifier does not know are ignored.
N8  A wrong signature by a known key refuses the whole note, however many good ones stand beside it.
N9  At least one known key has signed.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, b64encode
from collections.abc import Collection
from dataclasses import dataclass

from exequatur.errors import EvidenceError
from exequatur.statements.encoding import from_base64url, to_base64url
from exequatur.statements.keys import Signer, verify_signature

MAX_BYTES = 256 * 1024
"""Room for the 16 signatures that a verifier must accept, if each is a post-quantum one of 5 KB."""
MAX_SIGNATURES = 100
"""As in the Go implementation, ``golang.org/x/mod/sumdb/note``."""
ED25519 = 0x01
"""Signature type: Ed25519 over the text."""
COSIGNATURE = 0x04
"""Signature type: timestamped Ed25519 over a checkpoint (C2SP tlog-cosignature)."""

_KEY_ID_BYTES = 4
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_VERIFIER_KEY = re.compile(r"([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)\Z")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """An Ed25519 public key under a name (signed-note, "Verifier keys").

    Args:
        name: Key name; a URL without a scheme is usual.
        x: The public key, base64url.
        type: :data:`ED25519` or :data:`COSIGNATURE`.

    Raises:
        ValueError: One of them is not what it should be.
    """

    name: str
    x: str
    type: int = ED25519

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.type not in {ED25519, COSIGNATURE}:
            raise ValueError(f"the key of {self.name} is of type {self.type:#04x}, not 0x01 or 0x04")
        if len(from_base64url(self.x)) != 32:
            raise ValueError(f"the key of {self.name} has not 32 bytes")

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read ``<name>+<key id, hex>+<base64 of type and key>``.

        Raises:
            ValueError: ``text`` is not a verifier key, or the key id is not that of name, type and key.
        """
        match = _VERIFIER_KEY.match(text)
        if not match:
            raise ValueError("not a verifier key, which is written <name>+<key id>+<base64 of type and key>")
        raw = from_base64(match[3])
        if not raw:
            raise ValueError("a verifier key holds no key")
        key = cls(match[1], to_base64url(raw[1:]), raw[0])
        if key.id.hex() != match[2]:
            raise ValueError(f"the key id of verifier key {key.name} is {match[2]}, but its key has {key.id.hex()}")
        return key

    @property
    def id(self) -> bytes:
        """The key id, 4 bytes: a name for the key, too short to be a proof of it (signed-note, "Signatures")."""
        return hashlib.sha256(self.name.encode() + b"\n" + self._typed).digest()[:_KEY_ID_BYTES]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{to_base64(self._typed)}"

    @property
    def _typed(self) -> bytes:
        return bytes([self.type]) + from_base64url(self.x)


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature line; nobody has verified it.

    Args:
        name: Key name.
        key_id: 4 bytes.
        body: What follows the key id: for Ed25519 the signature.
    """

    name: str
    key_id: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A note that was read, not verified.

    Args:
        text: What is signed; it ends in a newline.
        signatures: In the order of their lines, those of unknown keys and types included.
    """

    text: str
    signatures: tuple[Signature, ...]


def parse(note: str | bytes) -> Note:
    """Read a note without believing it.

    Raises:
        EvidenceError: N1 to N6.
    """
    if len(note) > MAX_BYTES:  # [N1]
        raise _refused("N1", f"a note has more than {MAX_BYTES} bytes")
    try:  # [N2]
        decoded = note.decode() if isinstance(note, bytes) else note.encode().decode()
    except UnicodeError as err:
        raise _refused("N2", "a note is not UTF-8") from err
    if len(decoded.encode()) > MAX_BYTES:  # [N1]
        raise _refused("N1", f"a note has more than {MAX_BYTES} bytes")
    if _CONTROL.search(decoded):  # [N2]
        raise _refused("N2", "a note has a control character")
    text, separator, below = decoded.rpartition("\n\n")
    lines = below.split("\n")
    if not separator or lines[-1] or len(lines) < 2:  # [N3] [N4]
        raise _refused("N3", "a note has no signature lines below an empty line, or the last one does not end")
    if len(lines) > MAX_SIGNATURES + 1:  # [N1]
        raise _refused("N1", f"a note has more than {MAX_SIGNATURES} signatures")
    return Note(text + "\n", tuple(_signature(line, at) for at, line in enumerate(lines[:-1], start=1)))


def _signature(line: str, at: int) -> Signature:
    match line.split(" "):
        case ["—", name, encoded]:  # [N4]
            pass
        case _:
            raise _refused("N4", f"signature line {at} of a note is not an em dash, a key name and base64")
    try:
        check_name(name)
    except ValueError as err:  # [N5]
        raise _refused("N5", f"signature line {at} of a note names no key: {err}") from err
    try:
        raw = from_base64(encoded)
    except ValueError as err:  # [N6]
        raise _refused("N6", f"signature line {at} of a note is {err}") from err
    if len(raw) <= _KEY_ID_BYTES:  # [N6]
        raise _refused("N6", f"signature line {at} of a note holds no signature")
    return Signature(name, raw[:_KEY_ID_BYTES], raw[_KEY_ID_BYTES:])


def sign(text: str, name: str, signer: Signer) -> str:
    """Make a note with one Ed25519 signature.

    Args:
        text: One or more lines, the last with its newline.
        name: The key's name.
        signer: The key.

    Returns:
        The note; append further signature lines as they are.

    Raises:
        ValueError: ``text`` cannot be a note's, ``name`` cannot be a key's, or the note would be too long.
    """
    data = text.encode()
    if not text.endswith("\n") or _CONTROL.search(text):
        raise ValueError("the text of a note ends in a newline and has no other control character")
    note = f"{text}\n{signature_line(VerifierKey(name, signer.x), signer.sign(data))}"
    if len(note.encode()) > MAX_BYTES:
        raise ValueError(f"the note has more than {MAX_BYTES} bytes")
    return note


def signature_line(key: VerifierKey, body: bytes) -> str:
    """The line that says that ``key`` has signed, with its newline."""
    return f"— {key.name} {to_base64(key.id + body)}\n"


def verify(note: Note, keys: Collection[VerifierKey]) -> tuple[VerifierKey, ...]:
    """Find out which keys have signed a note's text.

    Args:
        note: What :func:`parse` gave.
        keys: The known keys; those for cosignatures sign something else and are passed over.

    Returns:
        The keys that have signed, at least one, each once.

    Raises:
        EvidenceError: N8 or N9.
    """
    signed = []
    for key in dict.fromkeys(keys):
        bodies = bodies_by(note, key) if key.type == ED25519 else []
        for body in bodies:
            if not verify_signature(key.x, body, note.text.encode()):  # [N8]
                raise _refused("N8", f"a signature of {key.name} under a note is wrong")
        if bodies:
            signed.append(key)
    if not signed:  # [N9]
        names = ", ".join(sorted({key.name for key in keys})) or "none was given"
        raise _refused("N9", f"a note is not signed by a known key ({names})")
    return tuple(signed)


def bodies_by(note: Note, key: VerifierKey) -> list[bytes]:
    """What signature lines with the name and id of ``key`` hold; nothing is verified."""
    return [line.body for line in note.signatures if line.name == key.name and line.key_id == key.id]  # [N7]


def check_name(name: str) -> None:
    """Check a key name (signed-note, "Format").

    Raises:
        ValueError: It is empty, or has a space, a plus sign, a control character or what is not UTF-8.
    """
    if not name or "+" in name or any(map(str.isspace, name)) or _CONTROL.search(name):
        raise ValueError("a key name is not empty and has neither spaces nor plus signs")
    name.encode()


def to_base64(data: bytes) -> str:
    """Encode with padding (RFC 4648, section 4)."""
    return b64encode(data).decode("ascii")


def from_base64(text: str) -> bytes:
    """Decode what :func:`to_base64` can produce.

    Raises:
        ValueError: ``text`` lacks padding, has a foreign character, or unused bits that are not zero.
    """
    try:
        data = b64decode(text, validate=True)
    except ValueError as err:
        raise ValueError("not canonical base64") from err
    if to_base64(data) != text:
        raise ValueError("not canonical base64")
    return data


def _refused(rule: str, reason: str) -> EvidenceError:
    return EvidenceError(f"{reason} [{rule}]")
