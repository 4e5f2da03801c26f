"""One entry of the revocation feed: what it revokes, until when, or which entry it lifts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from exequatur.errors import ConfigurationError
from exequatur.statements.encoding import compact_json, strict_json

NAMES = ("grant", "principal", "workflow", "activity", "worker", "key", "code", "bundle")
"""What can be revoked, besides everything."""
MAX_TEXT = 1000
"""Characters of a reason or a name; Temporal's own ids have as many."""
MAX_LINE = 64 * 1024
"""Bytes of an entry. One that :func:`revocation` made is shorter."""

Subject = Mapping[str, str | frozenset[str]]
"""Who is about to act, by the names of :data:`NAMES`: one value each, or all that it stands on."""
Moment = Annotated[float, Field(allow_inf_nan=False)]


class Revocation(BaseModel):
    """One revocation. It revokes what matches all the fields that are given.

    Its number is its place in the feed, from 1 on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: Moment
    reason: str
    grant: str | None = None
    """``jti`` of a grant or permit."""
    principal: str | None = None
    """``Type::"id"``."""
    workflow: str | None = None
    """Workflow id."""
    activity: str | None = None
    """Activity type."""
    worker: str | None = None
    """SPIFFE id, as the worker's credential has it in ``sub``."""
    key: str | None = None
    """RFC 7638 thumbprint: of an authority's key, or of a worker's."""
    code: str | None = None
    """Digest of the code that a worker's credential names."""
    bundle: str | None = None
    """Digest of a policy bundle."""
    everything: bool = False
    until: Moment | None = None
    """When it ends by itself, in seconds since 1970."""
    lifts: Annotated[int, Field(ge=1)] | None = None
    """Number of the entry that no longer counts from now on."""

    @model_validator(mode="after")
    def _names_something(self) -> Revocation:
        if self.lifts is not None:
            if self.everything or self.named or self.until is not None:
                raise ValueError("an entry that lifts another names nothing else")
        elif self.everything == bool(self.named):
            raise ValueError(
                "name a grant, a principal, a workflow, an activity, a worker, a key, a code digest or a bundle, or "
                "everything=True, but not both"
            )
        return self

    @cached_property
    def named(self) -> dict[str, str]:
        """What must match together."""
        return {name: value for name in NAMES if (value := getattr(self, name)) is not None}

    @cached_property
    def line(self) -> bytes:
        """The one JSON text that stands for it, in files and under digests."""
        return compact_json(self.model_dump(exclude_defaults=True))

    def revokes(self, subject: Subject) -> bool:
        """Whether this is about what the subject, given by the same names, is doing."""
        return self.everything or (
            self.lifts is None and all(_among(value, subject.get(name)) for name, value in self.named.items())
        )

    def stands(self, now: float) -> bool:
        """Whether it has not ended by itself.

        Args:
            now: Seconds since 1970.
        """
        return self.until is None or now < self.until


def _among(value: str, told: str | frozenset[str] | None) -> bool:
    return value in told if isinstance(told, frozenset) else value == told


def read_entry(data: bytes | str | Mapping[str, Any]) -> Revocation:
    """Read an entry.

    Args:
        data: JSON, or what was in it.

    Raises:
        ValueError: It is none.
    """
    if isinstance(data, bytes | str) and len(data) > MAX_LINE:
        raise ValueError(f"an entry has more than {MAX_LINE} bytes")
    value = strict_json(data) if isinstance(data, bytes | str) else data
    try:
        return Revocation.model_validate(value)
    except ValidationError as err:
        raise ValueError(f"no entry of a revocation feed: {_message(err)}") from err


def _message(error: ValidationError) -> str:
    first = error.errors(include_input=False)[0]
    where = ".".join(map(str, first["loc"]))[:100]
    return f"{where and where + ': '}{first['msg'].removeprefix('Value error, ')}"


def revocation(
    *,
    reason: str,
    everything: bool = False,
    until: float | None = None,
    lifts: int | None = None,
    at: float | None = None,
    **named: str | None,
) -> Revocation:
    """A revocation as of now.

    Args:
        reason: A sentence for those whose work ends.
        everything: The kill switch.
        until: When it ends by itself, in seconds since 1970.
        lifts: Number of the entry to lift.
        at: Seconds since 1970; now when absent.
        named: By the names of :data:`NAMES`.

    Raises:
        ConfigurationError: It names nothing, or everything and something, or it cannot be written down.
    """
    moment = round(time.time() if at is None else at, 3)
    try:
        if not reason.strip():
            raise ValueError("say for what reason")
        for name, value in (("reason", reason), *named.items()):
            if value is not None and (len(value) > MAX_TEXT or (not value and name != "reason")):
                raise ValueError(f"{name} has between 1 and {MAX_TEXT} characters")
        if until is not None and until <= moment:
            raise ValueError("it would end before it begins")
        entry = Revocation(
            at=moment,
            reason=reason,
            everything=everything,
            until=until,
            lifts=lifts,
            **{name: value for name, value in named.items() if value is not None},
        )
        entry.line  # noqa: B018 (text that is not Unicode shows here, and not when it is on its way to disk)
    except ValidationError as err:
        raise ConfigurationError(f"Nothing was revoked: {_message(err)}") from err
    except ValueError as err:
        raise ConfigurationError(f"Nothing was revoked: {err}") from err
    return entry
