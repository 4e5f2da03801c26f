"""How much of this machine the visitors of the demo page may use, and how they are told that it is enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from exequatur.errors import ExequaturError

PREFIX = "demo-"
"""Of task queues and workflow ids."""

Why = Literal["input", "busy", "enough", "gone", "full", "away", "broken"]


class SandboxError(ExequaturError):
    """Something that a visitor asked for was not done; the text is for the visitor.

    Args:
        sentence: What was not done, why, and the next step.
        why: ``input`` (it cannot be used as it is), ``busy`` (something else is going on), ``enough`` (a bound of this
            visitor is reached), ``gone`` (there is no such sandbox or run any more), ``full`` (others use all there
            is), ``away`` (the Temporal server does not answer), ``broken`` (the demo itself cannot be used).
        field: The name of the input that is wrong.
    """

    def __init__(self, sentence: str, why: Why, field: str | None = None) -> None:
        super().__init__(sentence)
        self.why: Why = why
        self.field = field


@dataclass(frozen=True)
class Limits:
    """The bounds.

    Args:
        visitors: Sandboxes at a time; each has a worker, some ten threads and a folder.
        each: Of them, those of one network address.
        idle: Seconds after which a sandbox that nobody uses is ended.
        yielding: Seconds after which one that nobody uses makes room for another visitor.
        age: Seconds after which a sandbox is ended.
        runs: Runs of one sandbox, all together.
        at_once: Runs of one sandbox that are open.
        run_seconds: How long a run may take; the server ends it then.
        policy_bytes: Of all policies of one sandbox, as UTF-8.
        edits: How often the policies of one sandbox are checked or changed.
        check_seconds: How long the check of a policy may take.
        audits: Audits of one sandbox.
        history_bytes: Of a history that is audited, as JSON.
        streams: Pages of one visitor that follow at a time.
    """

    visitors: int = 8
    each: int = 4
    idle: float = 600.0
    yielding: float = 120.0
    age: float = 3600.0
    runs: int = 30
    at_once: int = 2
    run_seconds: float = 120.0
    policy_bytes: int = 24 * 1024
    edits: int = 120
    check_seconds: float = 10.0
    audits: int = 200
    history_bytes: int = 2 * 1024 * 1024
    streams: int = 4
