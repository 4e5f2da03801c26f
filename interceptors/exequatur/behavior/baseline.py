"""What is usual: learned from histories, written to a file, and named by its digest.

A baseline holds names and numbers, and of texts only short digests; who can guess a text can still find out that it
occurs. Keep it as you keep the histories.

Rules, numbered as the code marks them:

B1  A baseline is read strictly and whole, or refused. It never changes; its digest stands in every decision that knew
     it.
B2  What it does not know, it says nothing about: an activity or workflow type that it never saw is for the ledger to
     judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError

from exequatur.behavior.arguments import Features, Kind
from exequatur.behavior.arguments import Field as Found
from exequatur.errors import ConfigurationError
from exequatur.statements.encoding import compact_json, digest, strict_json
from exequatur.statements.models import Part

MAX_FILE = 16 * 1024 * 1024
"""A journal record has no more."""
MAX_VALUES = 32
"""Different texts of a field that is a choice; one with more is free."""
MAX_SAMPLES = 20_000
"""Numbers of a field that its quartiles are taken from."""
MAX_DIFFERENT = 2000
"""Fields of an activity's arguments; where there are more, their names are data, and none of them is usual."""
_NAMED = 5
"""Differences that are told."""

Limit = Annotated[float, Field(allow_inf_nan=False)]
"""JSON has no infinity."""


class UsualField(Part):
    """What a field was like.

    Args:
        kinds: Of its values.
        always: It was in the arguments of every activity.
        values: Short digests of its texts, if it is a choice among a few; each was seen twice on average.
        least: Numbers below it are unusual.
        most: Numbers above it are unusual. Both are the least and the greatest number that were seen, or Tukey's
            fences where those are wider.
    """

    kinds: tuple[Kind, ...]
    always: bool
    values: tuple[str, ...] | None = None
    least: Limit | None = None
    most: Limit | None = None


class UsualActivity(Part):
    """What the arguments of an activity were like."""

    seen: int = Field(ge=1)
    fields: dict[str, UsualField]


class Baseline(Part):
    """What was seen.

    Args:
        runs: In how many runs.
        transitions: Of each workflow type: after which activity (empty at the beginning) which ones were asked for.
        activities: Of each activity type, its arguments.
    """

    format: Literal["exequatur-baseline-v1"] = "exequatur-baseline-v1"
    runs: int = Field(ge=0)
    transitions: dict[str, dict[str, tuple[str, ...]]]
    activities: dict[str, UsualActivity]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a baseline file.

        Raises:
            ConfigurationError: It cannot be read, or is no baseline.
        """
        try:
            with path.open("rb") as stream:
                data = stream.read(MAX_FILE + 1)
        except OSError as error:
            raise ConfigurationError(
                f"{path}: {error.strerror or error}; make a baseline with: exequatur behavior learn"
            ) from None
        return cls.parse(data, str(path))

    @classmethod
    def parse(cls, data: bytes, source: str = "the baseline") -> Self:
        """Read a baseline from its JSON form (B1).

        Raises:
            ConfigurationError: It is no baseline.
        """
        if len(data) > MAX_FILE:  # [B1]
            raise ConfigurationError(f"{source}: larger than {MAX_FILE >> 20} MiB, which no baseline is")
        try:
            strict_json(data)
            return cls.model_validate_json(data)
        except (ValidationError, ValueError) as error:
            why = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else error
            raise ConfigurationError(
                f"{source}: not a baseline ({why}); make one with: exequatur behavior learn"
            ) from None

    @cached_property
    def text(self) -> bytes:
        """Its one form."""
        return compact_json(self.model_dump(mode="json", exclude_none=True))

    @cached_property
    def digest(self) -> str:
        """Its name."""
        return digest(self.text)

    def follows(self, workflow_type: str, before: str, activity: str) -> bool | None:
        """Whether an activity was seen right after another one; ``None`` where the workflow type is unknown (B2).

        Args:
            workflow_type: The workflow's.
            before: The activity before it; empty at the beginning.
            activity: The activity.
        """
        known = self.transitions.get(workflow_type)
        return None if known is None else activity in known.get(before, ())

    def unlike(self, activity: str, features: Features) -> tuple[str, ...] | None:
        """What is new about arguments, a few words each and no values; ``None`` where the activity is unknown (B2).

        Args:
            activity: Its type.
            features: Of its arguments.
        """
        usual = self.activities.get(activity)
        if usual is None:
            return None
        found = dict.fromkeys(
            difference for each in features.fields if (difference := _difference(usual, each)) is not None
        )
        there = {each.path for each in features.fields}
        missing = [f"{path} is missing" for path, each in usual.fields.items() if each.always and path not in there]
        told = [*found, *missing]
        more = [f"{len(told) - _NAMED} more"] if len(told) > _NAMED else []
        return (*told[:_NAMED], *more)


def _difference(usual: UsualActivity, found: Found) -> str | None:
    known = usual.fields.get(found.path)
    if known is None:
        return f"{found.path} is new"
    if found.kind not in known.kinds:
        return f"{found.path} is of another kind: {found.kind}"
    if isinstance(found.value, str) and known.values is not None and found.value not in known.values:
        return f"{found.path} has a value that was never seen"
    if isinstance(found.value, float) and known.least is not None and known.most is not None:
        if found.value < known.least:
            return f"{found.path} is below all that is usual"
        if found.value > known.most:
            return f"{found.path} is above all that is usual"
    return None


@dataclass(frozen=True, slots=True)
class Ran:
    """An activity of a history.

    Args:
        activity: Its type.
        scheduled: Position in the history of what scheduled it.
        closed: The same of its end; ``None`` while it is open.
        features: Of its arguments; ``None`` where the history does not have them.
    """

    activity: str
    scheduled: int
    closed: int | None
    features: Features | None


@dataclass
class _Seen:
    count: int = 0
    kinds: set[Kind] = field(default_factory=set)
    texts: dict[str, None] | None = field(default_factory=dict)
    numbers: list[float] = field(default_factory=list)
    least: float = float("inf")
    most: float = float("-inf")
    values: int = 0


class Learner:
    """Collects what is usual, run by run; the same runs in the same order give the same baseline."""

    def __init__(self) -> None:
        self._runs = 0
        self._transitions: dict[str, dict[str, set[str]]] = {}
        self._activities: dict[str, tuple[int, dict[str, _Seen]]] = {}
        self.left_out: set[str] = set()
        """Activities of whose arguments nothing is learned, because their fields never are the same."""

    def add(self, workflow_type: str, ran: Sequence[Ran]) -> None:
        """Learn from one run.

        Args:
            workflow_type: Its type.
            ran: The activities that were not refused, in the order in which they were scheduled.
        """
        self._runs += 1
        after = self._transitions.setdefault(workflow_type, {})
        for before, activity in transitions_in(ran):
            after.setdefault(before, set()).add(activity)
        for each in ran:
            if each.features is not None and each.activity not in self.left_out:
                self._learn(each.activity, each.features)

    def _learn(self, activity: str, features: Features) -> None:
        count, fields = self._activities.get(activity, (0, {}))
        self._activities[activity] = (count + 1, fields)
        for path in dict.fromkeys(each.path for each in features.fields):
            fields.setdefault(path, _Seen()).count += 1
        if len(fields) > MAX_DIFFERENT:
            self.left_out.add(activity)
            del self._activities[activity]
            return
        for each in features.fields:
            seen = fields[each.path]
            seen.kinds.add(each.kind)
            if isinstance(each.value, str):
                seen.values += 1
                if seen.texts is not None:
                    seen.texts[each.value] = None
                    if len(seen.texts) > MAX_VALUES:
                        seen.texts = None
            elif each.value is not None:
                seen.least, seen.most = min(seen.least, each.value), max(seen.most, each.value)
                if len(seen.numbers) < MAX_SAMPLES:
                    seen.numbers.append(each.value)

    def baseline(self) -> Baseline:
        """What was learned.

        Raises:
            ConfigurationError: It is more than can be read again.
        """
        found = Baseline(
            runs=self._runs,
            transitions={
                name: {before: tuple(sorted(after)) for before, after in sorted(known.items())}
                for name, known in sorted(self._transitions.items())
            },
            activities={
                name: UsualActivity(
                    seen=count, fields={path: _usual(seen, count) for path, seen in sorted(fields.items())}
                )
                for name, (count, fields) in sorted(self._activities.items())
            },
        )
        if len(found.text) > MAX_FILE:
            raise ConfigurationError(
                f"what was learned is more than {MAX_FILE >> 20} MiB; learn from runs of fewer workflow types"
            )
        return found


def _usual(seen: _Seen, count: int) -> UsualField:
    choice = seen.texts if seen.texts and seen.values >= 2 * len(seen.texts) else None
    least = most = None
    if seen.numbers:
        ordered = sorted(seen.numbers)
        first, third = ordered[(len(ordered) - 1) // 4], ordered[3 * (len(ordered) - 1) // 4]
        reach = 1.5 * (third - first)
        if reach != float("inf"):
            least, most = min(seen.least, first - reach), max(seen.most, third + reach)
        else:
            least, most = seen.least, seen.most
    return UsualField(
        kinds=tuple(sorted(seen.kinds)),
        always=seen.count == count,
        values=None if choice is None else tuple(sorted(choice)),
        least=least,
        most=most,
    )


def transitions_in(ran: Sequence[Ran]) -> Iterator[tuple[str, str]]:
    """Which activity can be asked for right after which, given when each was scheduled and when it ended.

    Workers take activities that are scheduled together in any order, so each such order is among them.

    Args:
        ran: In the order in which they were scheduled.
    """
    end = float("inf")
    ends = sorted((each for each in ran if each.closed is not None), key=lambda each: each.closed or 0)
    over, latest = 0, -1
    recent: list[Ran] = []
    """What may stand right before the next: nothing has begun and ended between them."""
    for place, each in enumerate(ran):
        closed = end if each.closed is None else each.closed
        while over < len(ends) and (ends[over].closed or 0) < each.scheduled:
            latest = max(latest, ends[over].scheduled)
            over += 1
        if not over:
            yield "", each.activity
        recent = [other for other in recent if other.closed is None or other.closed >= latest]
        for other in recent:
            yield other.activity, each.activity
        for other in islice(ran, place + 1, None):
            if other.scheduled >= closed:
                break
            yield other.activity, each.activity
        recent.append(each)
