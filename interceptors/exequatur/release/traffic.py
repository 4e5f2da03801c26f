"""How much a process has decided lately, how long it took, and what was refused: numbers, in a worker's report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from exequatur.statements.models import Part

BOUNDS = (0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Upper bounds of the latency buckets in seconds; one more bucket holds what took longer."""
MINUTES = 15
"""Minutes that are told apart."""

Kind = Literal[
    "allowed", "observed", "denied", "rejected", "challenged", "unavailable", "revoked", "receipt", "message"
]
"""``observed`` is a refusal that kept nothing from happening; ``revoked`` ended while it ran; ``receipt`` is a result
without a valid one; ``message`` a signal, query or update that was refused."""
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Buckets = Annotated[tuple[Count, ...], Field(min_length=len(BOUNDS) + 1, max_length=len(BOUNDS) + 1)]
Kinds = Annotated[dict[Kind, Count], Field(max_length=9)]


class Minute(Part):
    """What happened in one minute."""

    at: Annotated[int, Field(ge=0, le=32_503_680_000)]
    """When it began, in seconds since 1970."""
    latency: Buckets
    kinds: Kinds


class Traffic(Part):
    """What happened since the process began to count."""

    since: Annotated[float, Field(ge=0, le=32_503_680_000, allow_inf_nan=False)]
    seconds: Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
    """That the gate took, together."""
    latency: Buckets
    """How often it took how long, by :data:`BOUNDS`."""
    kinds: Kinds
    minutes: Annotated[tuple[Minute, ...], Field(max_length=MINUTES)]
    """The last ones, the oldest first; the last is not over yet."""
