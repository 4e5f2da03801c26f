"""Which run a journal record is about, as its own body says.

Nothing is verified here: the answer decides under which run a record is found, not whether it is true. So it also reads
what a stricter parser would refuse, and a receipt of a later version is still found by whoever can verify it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from exequatur.statements.encoding import from_base64url, strict_json

_PLAIN = frozenset({"decision", "shadow", "message", "authority", "nexus"})
_SIGNED = frozenset({"receipt", "seal", "challenge"})
_LONGEST_WORKFLOW_ID = 2048
_LONGEST_RUN_ID = 200
"""UTF-8 bytes. Temporal's default limit is 1,000 for any id, and run ids are UUIDs; PostgreSQL's index takes 2,704 for
both together."""
_DIGEST = re.compile(r"[A-Za-z0-9_-]{43}\Z")


@dataclass(frozen=True, slots=True)
class Subject:
    """What a record claims to be about; ``None`` where it names nothing, or nothing that could be a name.

    Args:
        workflow_id: Workflow id.
        run_id: Run id.
        request: ``jti`` of the request.
        bundle: Digest of the policy bundle that decided.
    """

    workflow_id: str | None = None
    run_id: str | None = None
    request: str | None = None
    bundle: str | None = None


def subject_of(kind: str, body: bytes) -> Subject:
    """Find out which run a record is about; hostile bytes give an empty subject, never an error.

    Args:
        kind: Of the record: ``"decision"``, ``"shadow"``, ``"message"``, ``"authority"`` and ``"nexus"`` are JSON
            objects, ``"receipt"``, ``"seal"`` and ``"challenge"`` are compact JWS. Records of another kind, such as a
            policy bundle, are about no run.
        body: Of the record.
    """
    try:
        if kind in _PLAIN:
            claims = strict_json(body)
        elif kind in _SIGNED:
            # The credential of a seal or challenge follows it.
            _, payload, _ = body.decode("ascii").partition("~")[0].split(".")
            claims = strict_json(from_base64url(payload))
        else:
            return Subject()
    except ValueError:
        return Subject()
    if not isinstance(claims, dict):
        return Subject()
    # A signal to another workflow is found with the run that sent it, whose grant it stands on.
    sent = "sender_" if kind == "authority" and "sender_run_id" in claims else ""
    return Subject(
        _name(claims.get("sender" if sent else "workflow_id"), _LONGEST_WORKFLOW_ID),
        _name(claims.get("original_run_id" if kind == "challenge" else f"{sent}run_id"), _LONGEST_RUN_ID),
        _digest(claims.get("request")),
        _digest(claims.get("bundle")),
    )


def _name(value: Any, longest: int) -> str | None:
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        return None
    try:
        return value if len(value.encode()) <= longest else None
    except UnicodeEncodeError:  # JSON can spell half a surrogate pair
        return None


def _digest(value: Any) -> str | None:
    return value if isinstance(value, str) and _DIGEST.match(value) else None
