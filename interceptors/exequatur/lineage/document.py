"""Evidence as one JSON document, to hand to somebody who has no access to the store.

::

    {"version": "exequatur evidence v1",
     "logs": [{"log_id": "0011223344556677", "records": [
       {"index": 4, "at": 1800000000.5, "kind": "receipt", "body": "ZXlK…", "previous": "Kp0…", "head": "aY2…"}]}],
     "checkpoints": ["example.org/main/namespaces/default/workflows/refund-1/runs/0198…\\n42\\n…"],
     "trust": {"keys": []},
     "proofs": {}}

Members that are not there: ``request``, ``run`` and ``attempt`` of a record that has none; ``trust`` (a JWKS) and
``proofs`` (any JSON) where nobody gave them. Bodies, ``previous`` and ``head`` are base64url without padding; a
checkpoint is a signed note. A log may be incomplete and may stand here more than once, because each record brings the
head before it. Archived policy bundles are records like others, of kind ``bundle``; their address is the digest of
their body.

Rules, numbered as the code marks them:

Z5  A document has at most so many bytes and records. The bytes are counted before anything is decoded.
Z6  It is JSON without a member that appears twice, of a known version, with exactly the members above.
Z7  Every text that stands for bytes is the only one that does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Annotated, Any, Literal

from pydantic import Field, JsonValue, ValidationError

from exequatur.errors import EvidenceError
from exequatur.lineage.link import Link
from exequatur.lineage.record import Record
from exequatur.statements.encoding import compact_json, from_base64url, strict_json, to_base64url
from exequatur.statements.models import Digest, Part

VERSION = "exequatur evidence v1"
MAX_BYTES = 64 * 1024 * 1024
"""About 40,000 records; reading takes some ten times as much memory."""
MAX_RECORDS = 200_000

_Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Record(Part):
    index: _Count
    at: Annotated[float, Field(allow_inf_nan=False)]
    kind: str
    request: str | None = None
    run: str | None = None
    attempt: _Count | None = None
    body: str
    previous: Digest
    head: Digest


class _Log(Part):
    log_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    records: tuple[_Record, ...]


class _Document(Part):
    version: Literal["exequatur evidence v1"]
    logs: tuple[_Log, ...]
    checkpoints: tuple[str, ...]
    trust: dict[str, JsonValue] | None = None
    proofs: JsonValue = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a document holds; only its form was checked.

    Args:
        links: Records with the head before each, in the order of the document.
        checkpoints: Signed notes.
        trust: A JWKS.
        proofs: Any JSON.
    """

    links: tuple[Link, ...]
    checkpoints: tuple[str, ...]
    trust: Mapping[str, Any] | None
    proofs: Any


def write(
    out: IO[bytes],
    links: Iterable[Link],
    checkpoints: Iterable[str],
    trust: Mapping[str, Any] | None = None,
    proofs: Any = None,
) -> int:
    """Write a document piece by piece; nothing of it is kept in memory.

    Args:
        out: A binary stream.
        links: Records with the head before each; those of one log together, as far as that is easy.
        checkpoints: Signed notes.
        trust: A JWKS, or nothing.
        proofs: Any JSON, or nothing.

    Returns:
        The number of records.
    """
    count = 0
    out.write(b'{"version":%b,\n"logs":[' % compact_json(VERSION))
    log_id = None
    for link in links:
        if link.record.log_id == log_id:
            out.write(b",\n")
        else:
            begin = b'{"log_id":%b,"records":[\n' % compact_json(link.record.log_id)
            out.write(begin if log_id is None else b"]},\n" + begin)
            log_id = link.record.log_id
        out.write(compact_json(_written(link)))
        count += 1
    out.write(b'],\n"checkpoints":[' if log_id is None else b']}],\n"checkpoints":[')
    for number, note in enumerate(checkpoints):
        out.write((b",\n" if number else b"\n") + compact_json(note))
    out.write(b"]")
    for name, value in (("trust", trust), ("proofs", proofs)):
        if value is not None:
            out.write(b",\n%b:%b" % (compact_json(name), compact_json(value)))
    out.write(b"}\n")
    return count


def read(stream: IO[bytes], *, max_bytes: int = MAX_BYTES, max_records: int = MAX_RECORDS) -> Evidence:
    """Read a document without believing it.

    Args:
        stream: A binary stream.
        max_bytes: The longest document that is read.
        max_records: The most records.

    Raises:
        EvidenceError: Z5 to Z7, or the stream cannot be read.
    """
    data = _bytes(stream, max_bytes)
    try:
        version = _version(strict_json(data))
    except ValueError as err:
        raise _refused("Z6", "is not JSON, or has a member twice") from err
    if version != VERSION:
        named = f"is of version {version[:80]!r}" if isinstance(version, str) else "names no version"
        raise _refused("Z6", f"{named}, and this release knows {VERSION!r}; upgrade exequatur if it is a later one")
    try:
        content = _Document.model_validate_json(data)
    except ValidationError as err:
        field = ".".join(map(str, err.errors(include_input=False)[0]["loc"])) or "document"
        raise _refused("Z6", f"has a missing, unknown or ill-typed member: {field}") from err
    if sum(len(log.records) for log in content.logs) > max_records:
        raise _refused("Z5", f"has more than {max_records} records; import it with a higher limit, or in parts")
    return Evidence(tuple(_links(content)), content.checkpoints, content.trust, content.proofs)


def _bytes(stream: IO[bytes], max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    left = max_bytes + 1
    try:
        while left and (piece := stream.read(min(left, 1 << 20))):
            pieces.append(piece)
            left -= len(piece)
    except OSError as err:
        raise EvidenceError(f"the evidence document cannot be read: {err.strerror}") from err
    if not left:
        raise _refused("Z5", f"has more than {max_bytes} bytes; import it with a higher limit, or in parts")
    return b"".join(pieces)


def _version(content: Any) -> Any:
    return content.get("version") if isinstance(content, dict) else None


def _links(content: _Document) -> Iterator[Link]:
    for log in content.logs:
        for record in log.records:
            try:
                body = from_base64url(record.body)
            except ValueError as err:
                raise _refused("Z7", f"has a body that is {err}: record {record.index} of log {log.log_id}") from err
            yield Link(
                Record(
                    log.log_id,
                    record.index,
                    record.at,
                    record.kind,
                    record.request,
                    record.run,
                    record.attempt,
                    body,
                    record.head,
                ),
                record.previous,
            )


def _written(link: Link) -> dict[str, Any]:
    record = link.record
    members = {
        "index": record.index,
        "at": record.at,
        "kind": record.kind,
        "request": record.request,
        "run": record.run,
        "attempt": record.attempt,
        "body": to_base64url(record.body),
        "previous": link.previous,
        "head": record.head,
    }
    return {name: value for name, value in members.items() if value is not None}


def _refused(rule: str, what: str) -> EvidenceError:
    return EvidenceError(f"the evidence document {what} [{rule}]")
