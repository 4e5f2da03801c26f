"""What is shown where everybody may look: what happened, and not to whom.

Rules, numbered as the code marks them:

D1  A text is shown only if its name is listed here as one that names nobody; every other text is replaced. What is
    forgotten is hidden, not shown.
D2  An id becomes a short code, which tells two of them apart and leads nowhere: it is made with a key that this process
    forgets. Beginnings of ids would not do, because people put names there.
D3  What is no plain data is not shown at all.
D4  Numbers are shown, but not where their name is listed as telling of somebody.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from typing import Any

REDACTED = "redacted"
CODE = 6
"""Characters that an id becomes."""
_KEY = secrets.token_bytes(32)
PLAIN = frozenset(
    {
        "action",
        "activities",
        "activity",
        "activity_type",
        "channel",
        "clause",
        "code",
        "decided_words",
        "decision",
        "effect",
        "flag",
        "following",
        "heading",
        "headline",
        "integrity",
        "kind",
        "kinds",
        "label",
        "mark",
        "meaning",
        "message_kind",
        "mode",
        "other_ref",
        "outcome",
        "policies",
        "policy",
        "proof",
        "proof_words",
        "recomputed_words",
        "ref",
        "relation",
        "service",
        "severity",
        "shadow",
        "show",
        "side",
        "source",
        "state",
        "status",
        "stream_place",
        "tab",
        "tally",
        "told",
        "tone",
        "verdict",
        "verdict_first",
        "verdict_rest",
        "verdict_words",
        "was",
        "workflow_type",
    }
)
"""Names of texts that name nobody. Add one only if whatever stands there may be read by everybody."""
IDS = frozenset(
    {
        "activity_id",
        "bundle",
        "digest",
        "head",
        "host",
        "id",
        "key",
        "log",
        "manifest",
        "request",
        "run_id",
        "workflow_id",
    }
)
PERSONAL = frozenset({"amount", "arguments", "args", "cost", "pid"})
"""Names of numbers, and of whatever is below them, that are hidden."""


def redacted(value: Any, name: str = "") -> Any:
    """The same data without what names somebody.

    Args:
        value: Plain data: mappings, lists, texts, numbers, booleans and ``None``.
        name: What it is called.
    """
    if name in PERSONAL:  # [D4]
        return None if value is None else REDACTED
    match value:
        case None | bool() | int() | float():
            return value
        case str() if not value or name in PLAIN:
            return value
        case str() if name in IDS:  # [D2]
            return hmac.digest(_KEY, value.encode("utf-8", "replace"), "sha256").hex()[:CODE]
        case Mapping():
            return {each: redacted(inner, each) for each, inner in value.items() if isinstance(each, str)}
        case list() | tuple():
            return [redacted(each, name) for each in value]
    return REDACTED  # [D1] [D3]
