"""Arguments as records hold them, and what they would be under another bundle.

A history holds an activity's payloads: plain JSON, which gets its Cedar types from a bundle's schema. A journal holds
what Cedar was given: Cedar JSON, but only the part that the policies of that time could read.

Rule:

H1  What a policy reads and the record does not hold is said to be missing. It is never taken for absent, because
    ``has`` would then be false for a value that the activity had.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from exequatur.policy.arguments import Conversion, Path, dotted
from exequatur.policy.schema import SchemaModel
from exequatur.policy.types import RecordType
from exequatur.policy.values import convert_plain

#: The annotation by which a generated schema names an activity's parameters in their order.
PARAMETERS = "parameters"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a schema says of an action's arguments.

    Args:
        names: The parameters in their order, the last as ``*name`` where it takes the rest; None where they cannot be
            told.
        type: The type of ``context.args``.
    """

    names: tuple[str, ...] | None
    type: RecordType


class Held(Protocol):
    """Arguments under one schema."""

    def under(self, reads: frozenset[Path]) -> tuple[Conversion, str | None]:
        """Return the arguments for policies that read these paths, and what is missing for them."""
        ...


class Arguments(Protocol):
    """Arguments as a record has them."""

    def shaped(self, shape: Shape | None, action: str) -> Held:
        """Return them as they are under a schema, which may say nothing of the action."""
        ...


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for an argument that the record has in a form that cannot be read."""

    reason: str


@dataclass(frozen=True, slots=True)
class PlainArguments:
    """Arguments by position, as plain JSON values.

    Args:
        values: The values; :class:`Unreadable` among them.
    """

    values: Sequence[Any]

    def shaped(self, shape: Shape | None, action: str) -> Held:
        values = self.values
        if shape is None or shape.names is None:
            if not values and shape is None:
                return _Partly(Conversion({}, {}), {})
            why = f"the names of its arguments: no schema says @parameters(…) of {action}"
            return _Partly(Conversion({}, {}), {(): why})
        names = shape.names
        given: dict[str, Any] = {}
        if names and names[-1].startswith("*"):
            # The last parameter takes the rest, which may be none, as a list.
            names, rest = names[:-1], names[-1][1:]
            surplus = values[len(names) :]
            given[rest] = next((each for each in surplus if isinstance(each, Unreadable)), list(surplus))
            values = values[: len(names)]
        if len(values) > len(names):
            why = f"which of its {len(values)} arguments is which: the schema names {len(names)}"
            return _Partly(Conversion({}, {}), {(): why})
        given |= zip(names, values, strict=False)
        unknown: dict[Path, str] = {(name,): f"{dotted((name,))}, or its default" for name in names[len(values) :]}
        for name in [name for name, value in given.items() if isinstance(value, Unreadable)]:
            unknown[name,] = f"{dotted((name,))} as JSON: {given.pop(name).reason}"
        return _Partly(convert_plain(given, shape.type), unknown)


@dataclass(frozen=True, slots=True)
class NoArguments:
    """There were some, and the record does not hold them.

    Args:
        reason: Why.
    """

    reason: str

    def shaped(self, shape: Shape | None, action: str) -> Held:
        return _Partly(Conversion({}, {}), {(): self.reason})


@dataclass(frozen=True, slots=True)
class GivenArguments:
    """What Cedar was given of the arguments.

    Args:
        value: The part of the record ``context.args``.
        known: The paths that the deciding policies could read; None where those policies are not known.
        fault: What was said of an argument that had no form in Cedar; then nothing was given.
    """

    value: dict[str, Any]
    known: frozenset[Path] | None
    fault: str | None = None

    def shaped(self, shape: Shape | None, action: str) -> Held:
        return _Given(self)


@dataclass(frozen=True, slots=True)
class _Partly:
    conversion: Conversion
    unknown: Mapping[Path, str] = field(default_factory=dict)

    def under(self, reads: frozenset[Path]) -> tuple[Conversion, str | None]:
        if self.unknown:
            for read in sorted(reads):
                for path, why in self.unknown.items():
                    if path[: len(read)] == read or read[: len(path)] == path:  # [H1]
                        return self.conversion, why
        return self.conversion, None


@dataclass(frozen=True, slots=True)
class _Given:
    arguments: GivenArguments

    def under(self, reads: frozenset[Path]) -> tuple[Conversion, str | None]:
        value, known, fault = self.arguments.value, self.arguments.known, self.arguments.fault
        if fault is not None:
            if reads and known is not None and reads >= known:
                # Whoever reads at least as much meets the same fault.
                return Conversion({}, {(): fault}), None
            return Conversion({}, {}), "the arguments, one of which had no form in Cedar" if reads else None
        conversion = Conversion(value, {})
        for read in sorted(reads if known is None else reads - known):
            if not _holds(value, known, read):  # [H1]
                return conversion, dotted(read)
        return conversion, None


def _holds(value: Any, known: Iterable[Path] | None, read: Path) -> bool:
    """Whether what was given tells all that a read can see."""
    known = frozenset(known) if known is not None else None
    node = value
    for depth, name in enumerate(read):
        if known is not None and read[:depth] in known:
            return True
        if type(node) is not dict or "__extn" in node or "__entity" in node:
            return True
        if name not in node:
            # It was absent, if somebody looked; otherwise nobody knows.
            return known is not None and any(path[: depth + 1] == read[: depth + 1] for path in known)
        node = node[name]
    if known is not None and read in known:
        return True
    return bool(read) and (type(node) is not dict or "__extn" in node or "__entity" in node)


def shape_of(model: SchemaModel | None, action: str) -> Shape | None:
    """Return what a schema says of an action's arguments; None where it says nothing.

    The parameters are named by the annotation ``@parameters("order,amount")``; without it, by the only attribute of
    ``context.args`` where there is but one.
    """
    declared = model.actions.get(action) if model is not None else None
    if declared is None or declared.args is None:
        return None
    written = declared.annotations.get(PARAMETERS)
    if written is not None:
        names = tuple(name.strip() for name in written.split(",") if name.strip())
        return Shape(names, declared.args)
    only = tuple(each.name for each in declared.args.attributes)
    return Shape(only if len(only) < 2 else None, declared.args)
