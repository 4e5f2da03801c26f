"""Checkpoints (C2SP tlog-checkpoint v1) and the cosignatures of witnesses (C2SP tlog-cosignature v1).

A checkpoint says which root a log has at a size. The notary signs it; a witness that has seen it grow from all it has
seen before adds its own signature with a time. Pure: the caller says what time it is and keeps the notes.

::

    example.org/main/namespaces/default/workflows/refund-1/runs/0198c1c2-…
    42
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — example.org/notary Az3grlgtzPICa5OS8npVmf1M…
    — witness.example.net/w1 jWbPPwAAAABkGFDLEZMHwSRa…

Rules, numbered as the code marks them; those of the note around it are N1 to N9 of :mod:`exequatur.lineage.note`:

L1  A checkpoint is an origin, a size, a root and extension lines; no line is empty.
L2  The size is decimal without leading zeros and below 2**63.
L3  The root is canonical base64 of 32 bytes. That of the empty tree is the one that RFC 9162 gives it.
L4  The origin is the one that the caller expects: a checkpoint of one log says nothing about another.
L5  The notary has signed it. A witness's cosignature does not stand in for that.
L6  A cosignature holds a time, not zero and below 2**63, and a signature over that time and the whole text. A wrong one
    by a known witness refuses the checkpoint; those of unknown keys and types (0x02, 0x05, 0x06, …) are ignored.
L7  As many distinct witnesses as were demanded have cosigned. A witness counts once, by its name, however often it has
    cosigned and with however many of its keys.
L8  Witnesses are distinct parties: a key is of one witness only, because a cosignature does not cover the witness's
    name, and it is not the notary's. A threshold that they could never reach is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import quote

import rfc8785

from exequatur.errors import ConfigurationError, EvidenceError
from exequatur.lineage import note as notes
from exequatur.lineage.merkle import EMPTY_ROOT, HASH_BYTES, MAX_SIZE
from exequatur.lineage.note import COSIGNATURE, ED25519, VerifierKey, from_base64, to_base64
from exequatur.statements.keys import Signer, verify_signature

_DECIMAL = re.compile(r"(?:0|[1-9][0-9]{0,18})\Z")
_CONTROL = re.compile(r"[\x00-\x1f]")
_TIME_BYTES = 8


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log.

    Args:
        origin: The log's name, one line.
        size: Number of leaves.
        root: Root of the Merkle tree over them, 32 bytes.
        extensions: Further lines, opaque; the specification recommends none.

    Raises:
        ValueError: L1, L2 or L3.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for line in (self.origin, *self.extensions):  # [L1]
            if not line or _CONTROL.search(line):
                raise ValueError("a line of a checkpoint is empty or has a control character [L1]")
        if not 0 <= self.size < MAX_SIZE:  # [L2]
            raise ValueError(f"the size of a checkpoint is not below {MAX_SIZE} [L2]")
        if len(self.root) != HASH_BYTES:  # [L3]
            raise ValueError(f"the root of a checkpoint has not {HASH_BYTES} bytes [L3]")
        if self.size == 0 and self.root != EMPTY_ROOT:  # [L3]
            raise ValueError("the root of a checkpoint of size 0 is not that of the empty tree [L3]")

    def to_text(self) -> str:
        """The text that is signed, with its final newline."""
        return "".join(f"{line}\n" for line in (self.origin, self.size, to_base64(self.root), *self.extensions))

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read the text of a checkpoint note.

        Raises:
            EvidenceError: L1, L2 or L3.
        """
        *lines, end = text.split("\n")
        if end or len(lines) < 3:  # [L1]
            raise _refused("L1", "a checkpoint has fewer than three lines, or its last line does not end")
        origin, size, root, *extensions = lines
        if not _DECIMAL.match(size):  # [L2]
            raise _refused("L2", "the size of a checkpoint is not a decimal number below 2**63")
        try:
            decoded = from_base64(root)
        except ValueError as err:  # [L3]
            raise _refused("L3", f"the root of a checkpoint is {err}") from err
        try:
            return cls(origin, int(size), decoded, tuple(extensions))
        except ValueError as err:  # it names the rule
            raise EvidenceError(str(err)) from err


@dataclass(frozen=True, slots=True)
class VerifiedCheckpoint:
    """A checkpoint that its notary has signed and enough witnesses have cosigned.

    Args:
        checkpoint: What they signed.
        cosigned: When each witness says that it cosigned, by witness name: seconds since 1970, the earliest if there
            are several, because that bounds when the checkpoint existed. Not compared with any clock.
    """

    checkpoint: Checkpoint
    cosigned: Mapping[str, int]


def run_origin(site: str, namespace: str, workflow_id: str, run_id: str) -> str:
    """The origin of the log of one run's events. No two runs share one, whatever characters their ids hold.

    Args:
        site: Trust domain and cluster, for example ``"example.org/main"``.
        namespace: Temporal namespace.
        workflow_id: Workflow id, any text.
        run_id: Run id.

    Raises:
        ValueError: One of them is not representable in UTF-8.
    """
    return f"{namespace_origin(site, namespace)}/workflows/{quote(workflow_id, safe='')}/runs/{quote(run_id, safe='')}"


def namespace_origin(site: str, namespace: str) -> str:
    """The origin of the log of a namespace, whose leaves are heads of run logs.

    Args:
        site: Trust domain and cluster, for example ``"example.org/main"``.
        namespace: Temporal namespace.

    Raises:
        ValueError: One of them is not representable in UTF-8.
    """
    return f"{quote(site)}/namespaces/{quote(namespace, safe='')}"


def head_leaf(origin: str, size: int, root: bytes) -> bytes:
    """The leaf that a namespace's log appends for the head of a run's log: canonical JSON (RFC 8785).

    Args:
        origin: Of the run's log.
        size: Its number of leaves.
        root: Its root, 32 bytes.

    Raises:
        ValueError: There is no checkpoint of these, or the size is 2**53 or more, which canonical JSON cannot hold.
    """
    head = Checkpoint(origin, size, root)
    return rfc8785.dumps(
        {"exequatur": "head v1", "origin": head.origin, "root": to_base64(head.root), "size": head.size}
    )


def claimed(note: str) -> Checkpoint:
    """What a note says, whoever has signed it.

    Raises:
        EvidenceError: It is not a checkpoint note.
    """
    return Checkpoint.parse(notes.parse(note).text)


def sign(checkpoint: Checkpoint, name: str, signer: Signer) -> str:
    """Make the notary's note.

    Args:
        checkpoint: The head; it must follow from every one of this origin that was signed before.
        name: The notary's key name.
        signer: The notary's key.

    Raises:
        ValueError: ``name`` cannot be a key's.
    """
    return notes.sign(checkpoint.to_text(), name, signer)


def cosign(signed: str, name: str, signer: Signer, at: int) -> str:
    """Add a witness's cosignature (tlog-cosignature, "Ed25519 signed message").

    Args:
        signed: The checkpoint note, with whatever signatures it has.
        name: The witness's key name.
        signer: The witness's key, which signs nothing but cosignatures under this name.
        at: Seconds since 1970.

    Returns:
        The note with one signature line more.

    Raises:
        EvidenceError: ``signed`` is not a checkpoint note.
        ValueError: ``at`` is not above zero and below 2**63, or ``name`` cannot be a key's.
    """
    note = notes.parse(signed)
    Checkpoint.parse(note.text)
    if not 0 < at < 2**63:
        raise ValueError("the time of a cosignature is above zero and below 2**63")
    body = at.to_bytes(_TIME_BYTES, "big") + signer.sign(_cosigned(note.text, at))
    return signed + notes.signature_line(VerifierKey(name, signer.x, COSIGNATURE), body)


def verify(signed: str | bytes, notaries: Collection[VerifierKey]) -> Checkpoint:
    """Read a checkpoint that a notary has signed.

    Args:
        signed: The note.
        notaries: Known keys, of type :data:`~exequatur.lineage.note.ED25519`.

    Raises:
        EvidenceError: N1 to N9, L1 to L3 or L5.
    """
    return _signed_by(notes.parse(signed), notaries)


def verify_checkpoint(
    signed: str | bytes,
    *,
    notary: VerifierKey,
    witnesses: Collection[VerifierKey] = (),
    threshold: int = 0,
    origin: str | None = None,
) -> VerifiedCheckpoint:
    """Verify a checkpoint note with the cosignatures of witnesses.

    Args:
        signed: The note.
        notary: The notary's key, of type :data:`~exequatur.lineage.note.ED25519`.
        witnesses: Known witnesses' keys, of type :data:`~exequatur.lineage.note.COSIGNATURE`.
        threshold: How many distinct witnesses must have cosigned.
        origin: The log that the caller asks about; without it the caller compares.

    Raises:
        ConfigurationError: L8; nothing was read.
        EvidenceError: N1 to N9, or L1 to L7.
    """
    _check_parties(notary, witnesses, threshold)
    note = notes.parse(signed)
    checkpoint = _signed_by(note, (notary,))
    if origin is not None and checkpoint.origin != origin:  # [L4]
        raise _refused("L4", f"a checkpoint is of the log {checkpoint.origin}, not of {origin}")
    cosigned = _cosignatures(note, witnesses)
    if len(cosigned) < threshold:  # [L7]
        raise _refused(
            "L7",
            f"the checkpoint of {checkpoint.origin} at size {checkpoint.size} is cosigned by {len(cosigned)} known "
            f"witnesses, {threshold} are demanded; let the others cosign it",
        )
    return VerifiedCheckpoint(checkpoint, cosigned)


def _signed_by(note: notes.Note, notaries: Collection[VerifierKey]) -> Checkpoint:
    notes.verify(note, notaries)  # [L5]
    return Checkpoint.parse(note.text)


def _check_parties(notary: VerifierKey, witnesses: Collection[VerifierKey], threshold: int) -> None:
    if notary.type != ED25519:  # [L5]
        raise ConfigurationError(f"the notary's key {notary} is one for cosignatures; name the one of type 0x01 [L5]")
    owner = {notary.x: notary}
    for witness in witnesses:
        if witness.type != COSIGNATURE:  # [L8]
            raise ConfigurationError(f"the key {witness} is not one for cosignatures; name the one of type 0x04 [L8]")
        if owner.setdefault(witness.x, witness) != witness:  # [L8]
            raise ConfigurationError(
                f"{witness.name} and {owner[witness.x].name} share a key; give every party one of its own [L8]"
            )
    known = len({witness.name for witness in witnesses})
    if not 0 <= threshold <= known:  # [L8]
        raise ConfigurationError(
            f"{threshold} witnesses are demanded and {known} are known; name more witnesses or lower the threshold [L8]"
        )


def _cosignatures(note: notes.Note, witnesses: Collection[VerifierKey]) -> dict[str, int]:
    cosigned: dict[str, int] = {}
    for witness in witnesses:
        for body in notes.bodies_by(note, witness):
            at = int.from_bytes(body[:_TIME_BYTES], "big")
            if not 0 < at < 2**63 or not verify_signature(witness.x, body[_TIME_BYTES:], _cosigned(note.text, at)):
                raise _refused("L6", f"a cosignature of {witness.name} under a checkpoint is wrong")  # [L6]
            cosigned[witness.name] = min(at, cosigned.get(witness.name, at))  # [L7]
    return cosigned


def _cosigned(text: str, at: int) -> bytes:
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def _refused(rule: str, reason: str) -> EvidenceError:
    return EvidenceError(f"{reason} [{rule}]")
