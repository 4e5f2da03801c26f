"""How much of this machine the visitors of the demo page may use, and how they are told that it is enough."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

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


_Count: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=10_000)]
_Seconds: TypeAlias = Annotated[float, Field(strict=True, gt=0, le=7 * 24 * 3600)]
_Bytes: TypeAlias = Annotated[int, Field(strict=True, ge=1024, le=16 * 1024 * 1024)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Limits:
    """The bounds, as ``[demo_limits]`` of ``console.toml`` may set them.

    Args:
        visitors: Sandboxes at a time; each has a worker, some ten threads and a folder.
        each: Of them, those of one network address.
        openings: Sandboxes that one network address may open in an hour; whoever resets one opens another.
        idle: Seconds after which a sandbox that nobody uses is ended.
        yielding: Seconds after which one that nobody uses makes room for another visitor.
        age: Seconds after which a sandbox is ended.
        runs: Runs of one sandbox, all together.
        at_once: Runs of one sandbox that are open.
        run_seconds: How long a run may take; the server ends it then.
        policy_bytes: Of all policies of one sandbox, as UTF-8.
        edits: How often the policies of one sandbox are checked or changed.
        check_seconds: How long the check of a policy may take.
        checks: Checks of all sandboxes at a time; each is a process.
        audits: Audits of one sandbox.
        history_bytes: Of a history that is audited, as JSON.
        streams: Pages of one visitor that follow at a time.
    """

    visitors: _Count = 8
    each: _Count = 4
    openings: _Count = 60
    idle: _Seconds = 600.0
    yielding: _Seconds = 120.0
    age: _Seconds = 3600.0
    runs: _Count = 30
    at_once: _Count = 2
    run_seconds: _Seconds = 120.0
    policy_bytes: _Bytes = 24 * 1024
    edits: _Count = 120
    check_seconds: _Seconds = 10.0
    checks: Annotated[int, Field(strict=True, ge=1, le=256)] = 2
    audits: _Count = 200
    history_bytes: _Bytes = 2 * 1024 * 1024
    streams: _Count = 4
