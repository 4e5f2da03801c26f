"""What the control workflow is told and tells. Plain data, as Temporal carries it."""

from __future__ import annotations

from dataclasses import dataclass, field

WORKFLOW_ID = "exequatur-control"
WORKFLOW_TYPE = "ExequaturControl"
TASK_QUEUE = "exequatur-control"
PUBLISH = "publish"
ENTRIES = "entries"
MEMO = "exequatur-revocations"
"""The memo's field with the newest signed head, for those who follow."""
MAX_FEED_BYTES = 1_500_000
"""Of all entries, as Temporal writes them. They go along when the workflow continues as new, with 2 MB of input."""


@dataclass
class Published:
    """Entries, and the signed head that they lead to.

    Args:
        head: Compact token.
        after: The version that the entries follow.
        entries: JSON lines, oldest first.
        more: There are more before the head is reached; they come next.
    """

    head: str
    after: int
    entries: list[str] = field(default_factory=list)
    more: bool = False


@dataclass
class Kept:
    """What the workflow begins with.

    Args:
        trust: JWK set of the anchors that its heads are verified with.
        aud: Trust domain and cluster.
        head: The newest head; empty before the first.
        entries: All of them, as JSON lines.
    """

    trust: str
    aud: str
    head: str = ""
    entries: list[str] = field(default_factory=list)
