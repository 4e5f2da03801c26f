"""The chain that ties a run's requests and receipts together (DESIGN section 2).

The head begins from what identifies the run and takes in each request core and each receipt in the order in which the
workflow saw them. Everything that goes in is recorded in history, so replay arrives at the same head. Runs inside the
workflow sandbox; it uses no clock and no randomness.

Messages have a head of their own, in the order in which they were handled: whether a request was made before or after
a message came is not the same in every run that is otherwise the same.
"""

from __future__ import annotations

from typing import Literal

from exequatur.statements.encoding import compact_json, digest


def genesis(
    *,
    namespace: str,
    workflow_id: str,
    workflow_type: str,
    original_run_id: str,
    leaf: str,
    seal: str | None,
) -> str:
    """The head before the first request.

    Args:
        namespace: From the grant, because a replayer knows no namespace.
        workflow_id: Workflow id.
        workflow_type: Workflow type.
        original_run_id: The run id that survives a reset.
        leaf: Digest of the grant, or of the last delegation.
        seal: Digest of the seal of the run that this one continues.
    """
    return digest(
        compact_json(["exequatur chain v1", namespace, workflow_id, workflow_type, original_run_id, leaf, seal])
    )


def fold(head: str, kind: Literal["request", "receipt"], item: str) -> str:
    """Take a request core's hash or a receipt token's digest into the head."""
    return digest(compact_json(["exequatur chain v1", head, kind, item]))


def handled_message(kind: str, name: str, args: str, token: str | None, refused: str | None) -> str:
    """What is taken into the head of the messages.

    Args:
        kind: ``signal`` or ``update``.
        name: Of the message.
        args: Digest of the arguments' payloads.
        token: Digest of the last token that it came with; ``None`` where there was none that could be told.
        refused: The number of the rule that refused it, for example ``"M17"``; ``None`` where it was accepted.
    """
    return digest(compact_json(["exequatur message v1", kind, name, args, token, refused]))


def fold_message(head: str | None, item: str) -> str:
    """Take a handled message into the head of the messages, which is ``None`` before the first."""
    return digest(compact_json(["exequatur messages v1", head, item]))
