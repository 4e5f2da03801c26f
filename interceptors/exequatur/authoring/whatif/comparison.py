"""What a comparison of two bundles is made from and what comes of it: recorded decisions, answers, changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from exequatur.authoring.whatif.held import Arguments

Change = Literal["allow_to_deny", "deny_to_allow", "undecidable", "other_policies"]
"""``undecidable``: a bundle reads what the record does not hold; ``other_policies``: the same answer by others."""


@dataclass(frozen=True, slots=True)
class Where:
    """Which decision it was.

    Args:
        workflow_id: Of the run.
        run_id: The run; empty where it is not known.
        activity_id: Empty for the start of a workflow.
        at: Seconds since 1970.
        source: What it was read from: ``journal`` or ``history``.
        attempt: Of the activity, from 1.
    """

    workflow_id: str
    run_id: str
    activity_id: str
    at: float
    source: str
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Recorded:
    """A decision that was made, as a question.

    Args:
        where: Which one.
        principal: Cedar JSON entity.
        action: The activity type, or an action of the gate's own.
        resource: What it was done to; None where the record does not say, which is then the workflow unless the schema
            says that the action is done to something else.
        arguments: The arguments as the record holds them.
        facts: The other attributes of the context, as Cedar JSON.
        complete: Whether a fact that is not there was not there when it was decided.
        decision: What was decided, if the record says.
        absent: Facts of which it is known that they were not there.
    """

    where: Where
    principal: Mapping[str, Any]
    action: str
    resource: Mapping[str, str] | None
    arguments: Arguments
    facts: Mapping[str, Any]
    complete: bool
    decision: Literal["allow", "deny"] | None = None
    absent: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a bundle says.

    Args:
        allowed: None where it cannot be told (C2).
        policies: The determining policies by ``@id``, or by their place where they have none.
        same_as: What tells them from others in another bundle.
        why: What is missing, or why the gate denies other than by policy.
        ids: Their Cedar ids.
    """

    allowed: bool | None
    policies: tuple[str, ...] = ()
    same_as: frozenset[str] = frozenset()
    why: str | None = None
    ids: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        return "undecidable" if self.allowed is None else "allow" if self.allowed else "deny"


@dataclass(frozen=True, slots=True)
class Example:
    """One decision of a group; ``values`` are some of those that the policies which make the difference read."""

    where: Where
    principal: str
    old: Answer
    new: Answer
    values: Mapping[str, str]


@dataclass(slots=True)
class Group:
    """Decisions that change for the same cause.

    Args:
        change: How.
        activity: The activity type.
        cause: One phrase: which policies do what, or what is missing.
        policies: The policies in it.
        count: How many decisions.
        examples: The first of them.
    """

    change: Change
    activity: str
    cause: str
    policies: tuple[str, ...]
    count: int = 0
    examples: list[Example] = field(default_factory=list)


@dataclass(slots=True)
class Comparison:
    """What came of it.

    Args:
        asked: Questions.
        same: The same answer by the same policies.
        changes: How many changed, by how.
        not_reproduced: The record says another decision than the old bundle: it was made by other policies.
        groups: By change, activity and cause; the largest first.
        ungrouped: Changes beyond the groups that are told apart.
    """

    asked: int
    same: int
    changes: Mapping[Change, int]
    not_reproduced: int
    groups: tuple[Group, ...]
    ungrouped: int

    @property
    def flips(self) -> int:
        """How many are allowed by one bundle and denied by the other."""
        return self.changes["allow_to_deny"] + self.changes["deny_to_allow"]
