"""An activity's real arguments as Cedar JSON: total, exact and strict.

Rules:

A1  Whatever the arguments are, the conversion returns; what cannot be represented becomes a fault at its path.
A2  Nothing is rounded, truncated or coerced: a value is exact in Cedar or it is a fault.
A3  No argument can pass for a Cedar escape: a record with a key ``__entity``, ``__extn`` or ``__expr`` is a fault.
A4  None is an absent attribute where the declaration allows None, else a fault.
A5  Absence is truthful: an absent key is a fault unless it is not declared in a closed record, is declared as not
    required, by the code or for a dict by the schema, or is an optional that is None. Otherwise ``has`` would be false
    for a value that the body may see.
A6  Size is bounded: depth, number of values, length of strings.
A7  Numbers have the declared kind: where fractions are declared, a whole number is a decimal, too; where only whole
    numbers are, a fraction is a fault.

Example: ``refund(order: Order, amount: float)`` called with ``(Order("o-1"), 600.5)`` becomes
``{"order": {"id": "o-1"}, "amount": {"__extn": {"fn": "decimal", "arg": "600.5"}}}``.
"""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, cast

from exequatur.policy.hints import RESERVED_KEYS, UNKNOWN, ClassPlan, Hint, plan_of, typed_dict_keys
from exequatur.policy.scalars import LONG_MAX, LONG_MIN, SCALARS, Unrepresentable, decimal
from exequatur.policy.signature import ActivitySignature, Parameter

__all__ = ["ActivitySignature", "Conversion", "convert_arguments", "dotted"]

Path = tuple[str, ...]

#: Cedar itself stops at a recursion limit; real arguments are rarely nested more than five levels.
MAX_DEPTH = 32
#: One evaluation must stay far below a millisecond or so; larger collections are data, not something to decide on.
MAX_NODES = 10_000
#: A context is copied several times on its way into Cedar.
MAX_STRING, MAX_STRINGS = 64 * 1024, 256 * 1024
#: Values looked at in one conversion, those included that were dropped again because a collection was too large.
MAX_WORK = 4 * MAX_NODES
#: Strings up to this length take the short way, without counting their bytes.
_SHORT = 256

_READERS: tuple[tuple[type, Callable[[Any], Iterable[Any]]], ...] = (
    (list, list.__iter__),
    (tuple, tuple.__iter__),
    (set, set.__iter__),
    (frozenset, frozenset.__iter__),
)


@dataclass(frozen=True, slots=True)
class Conversion:
    """Converted arguments and what could not be converted.

    Args:
        value: The Cedar JSON record for ``context.args``.
        faults: Path to one sentence, for every value that has no exact Cedar form; ``()`` is all of the arguments.
        open: Paths of the records whose keys are not declared (dicts).
        nones: Paths of the declared optionals that are None, hence absent from ``value``.
    """

    value: dict[str, Any]
    faults: Mapping[Path, str]
    open: frozenset[Path] = frozenset()
    nones: frozenset[Path] = frozenset()

    def fault_for(
        self,
        reads: Iterable[Path],
        contents: frozenset[Path] | None = None,
        optional: frozenset[Path] = frozenset(),
    ) -> tuple[Path, str] | None:
        """Return the first fault that one of the given reads could run into.

        Args:
            reads: Argument paths that policies can read; ``()`` reads everything.
            contents: Those of which they read more than whether they are there; all of them if absent.
            optional: What a schema declares as optional: where a dict lacks that key, its absence was foreseen.

        Returns:
            Path and sentence: a fault at, above or below a read, or a key that is absent although it could exist (A5).
        """
        if not self.faults and not self.open:
            return None
        for read in sorted(reads):
            found = self._fault_at(read, optional, content=contents is None or read in contents)
            if found is not None:
                return found
        return None

    def given(self, reads: Iterable[Path]) -> dict[str, Any]:
        """Return the part of the record that the given reads can see; to them it is the same as the whole."""
        out: dict[str, Any] = {}
        for read in reads:
            if not read:
                return self.value
            source, target = self.value, out
            for length, key in enumerate(read, 1):
                if key not in source:
                    break
                node = source[key]
                if length == len(read) or _is_leaf(node):
                    target[key] = node
                    break
                source, target = node, target.setdefault(key, {})
        return out

    def _fault_at(self, read: Path, optional: frozenset[Path], *, content: bool) -> tuple[Path, str] | None:
        for length in range(len(read) + 1):
            if read[:length] in self.faults:
                return read[:length], self.faults[read[:length]]
        for path in sorted(self.faults) if content else ():
            if path[: len(read)] == read:
                return path, self.faults[path]
        node: Any = self.value
        for length, key in enumerate(read):
            if _is_leaf(node):
                return None
            if key not in node:
                here = read[: length + 1]
                if read[:length] in self.open and here not in self.nones and here not in optional:
                    return here, _sentence(here, "is not given, and a policy reads it")
                return None
            node = node[key]
        return None


def convert_arguments(signature: ActivitySignature, args: Sequence[Any]) -> Conversion:
    """Convert the arguments of one activity execution; never raises for any input.

    Args:
        signature: The activity's parameters.
        args: The arguments by position, as the body will get them; defaults are applied, since the body sees them.

    Returns:
        The record for ``context.args`` with its faults.
    """
    converter = _Converter()
    try:
        value = converter.arguments(signature, args)
    except KeyboardInterrupt:
        raise
    except BaseException:  # [A1]
        return Conversion({}, {(): "the arguments could not be read"})
    return Conversion(value, converter.faults, frozenset(converter.open), frozenset(converter.nones))


def _is_leaf(node: Any) -> bool:
    """Whether a part of a Cedar JSON value has no members: an extension value and an entity look like records."""
    return type(node) is not dict or "__extn" in node or "__entity" in node


def dotted(path: Path) -> str:
    """Return an argument path as people write it; keys of dicts are data, so odd ones are quoted and long ones cut."""
    return ".".join(("args", *(key[:60] if key.isidentifier() else json.dumps(key[:60]) for key in path)))


def _sentence(path: Path, reason: str) -> str:
    return f"{dotted(path)} {reason}"


class _Exhausted(Exception):
    """The values converted so far are as many as a decision may carry."""


class _Converter:
    """The state of one conversion."""

    __slots__ = ("characters", "faults", "in_set", "nodes", "nones", "open", "work")

    def __init__(self) -> None:
        self.faults: dict[Path, str] = {}
        self.open: set[Path] = set()
        self.nones: set[Path] = set()
        self.nodes = self.characters = self.work = self.in_set = 0

    def arguments(self, signature: ActivitySignature, args: Sequence[Any]) -> dict[str, Any]:
        if not signature.known:
            self.faults[()] = "the parameters of this activity cannot be told, so no policy can read its arguments"
            return {}
        out: dict[str, Any] = {}
        given = len(args)
        for index, parameter in enumerate(signature.positional):
            self._parameter(out, parameter, args[index] if index < given else parameter.default)
        for parameter in signature.keyword_only:
            self._parameter(out, parameter, parameter.default)
        surplus = list(args[len(signature.positional) :])
        if signature.rest is not None:
            name, hint = signature.rest
            self._parameter(out, Parameter(name, Hint(items=hint), inspect.Parameter.empty), surplus)
        elif surplus:
            self.faults[()] = (
                f"{given} arguments were given, but the activity has {len(signature.positional)} parameters"
            )
        return out

    def _parameter(self, out: dict[str, Any], parameter: Parameter, value: Any) -> None:
        if parameter.name in RESERVED_KEYS:  # [A3]
            self._refuse((parameter.name,), "has a name that Cedar reserves")
        elif value is inspect.Parameter.empty:  # [A5]
            self._refuse((parameter.name,), "is not given and has no default")
        else:
            self._member(out, parameter.name, value, parameter.hint, (), 0)

    def _refuse(self, path: Path, reason: str) -> None:
        # Policies cannot look into the elements of a set, so a fault inside makes the whole set unrepresentable.
        if self.in_set:
            raise Unrepresentable(reason)
        self.faults[path] = _sentence(path, reason)

    def _count(self, nodes: int) -> None:
        self.nodes += nodes
        self.work += nodes
        if self.nodes > MAX_NODES or self.characters > MAX_STRINGS or self.work > MAX_WORK:  # [A6]
            raise _Exhausted

    def _member(self, out: dict[str, Any], name: str, value: Any, hint: Hint, path: Path, depth: int) -> None:
        here = (*path, name)
        if value is None:  # [A4]
            if not hint.optional:  # [A4]
                self._refuse(here, "is None where no None is declared")
            elif not self.in_set:
                self.nones.add(here)
            return
        nodes, characters = self.nodes, self.characters
        try:
            out[name] = self._convert(value, hint, here, depth)
        except Unrepresentable as fault:
            self._refuse(here, fault.reason)
        except _Exhausted:
            # The value is dropped, so it no longer counts; the work that it cost does, and bounds the whole.
            self.nodes, self.characters = nodes, characters
            self._refuse(
                here, f"holds more than {MAX_NODES} values or {MAX_STRINGS} bytes of text with what precedes it"
            )
        except KeyboardInterrupt:
            raise
        except BaseException:  # [A1] code of the value's own class ran
            self._refuse(here, "could not be read")

    def _convert(self, value: Any, hint: Hint, path: Path, depth: int) -> Any:
        cls = type(value)
        if cls is str:
            return self._text(value)
        scalar = SCALARS.get(cls)
        self._count(1)
        if hint.number == "decimal" and cls is int:  # [A7]
            return decimal(Decimal(value))
        if hint.number == "long" and cls in (float, Decimal):  # [A7]
            raise Unrepresentable("is a number with fractions where a whole one is declared")
        if scalar is not None:
            return scalar(value)
        if depth >= MAX_DEPTH:  # [A6]
            raise Unrepresentable(f"is nested more than {MAX_DEPTH} levels deep")
        if cls is dict:
            return self._mapping(value, hint, path, depth + 1)
        if cls is list:
            return self._elements(list.__iter__(value), hint, path, depth + 1)
        if issubclass(cls, Enum):
            if value._value_ is None:
                raise Unrepresentable("is an enum member whose value is None")
            return self._convert(value._value_, Hint(number=hint.number), path, depth + 1)
        plan = plan_of(cast(Any, cls))
        if plan is not None:
            return self._instance(value, plan, path, depth + 1)
        if issubclass(cls, dict):
            return self._mapping(value, hint, path, depth + 1)
        for base, reader in _READERS:
            if issubclass(cls, base):
                items = self._elements(reader(value), hint, path, depth + 1)
                # The same set must give the same bytes in every process, whatever the hash seed.
                return sorted(items, key=_canonical) if base in (set, frozenset) else items
        if issubclass(cls, str):
            return self._text(str.__str__(value))
        if issubclass(cls, int):
            return self._convert(int.__int__(value), hint, path, depth + 1)
        if issubclass(cls, float):
            return SCALARS[float](float.__float__(value))
        raise Unrepresentable(f"is of type {cls.__name__[:60]}, which Cedar cannot represent")

    def _text(self, value: str) -> str:
        self._count(1)
        size = len(value)
        if size <= MAX_STRING and not value.isascii():
            try:
                size = len(value.encode())
            except UnicodeEncodeError:
                raise Unrepresentable("is a string that is not valid Unicode (a lone surrogate)") from None
        if size > MAX_STRING:  # [A6]
            raise Unrepresentable(f"is a string of more than {MAX_STRING} bytes")
        self.characters += size
        if self.characters > MAX_STRINGS:  # [A6]
            raise _Exhausted
        return value

    def _elements(self, items: Iterable[Any], hint: Hint, path: Path, depth: int) -> list[Any]:
        declared = hint.items or UNKNOWN
        out = []
        self.in_set += 1
        try:
            for item in items:
                if item is None:
                    raise Unrepresentable("is None")
                out.append(self._convert(item, declared, path, depth))
        except Unrepresentable as fault:
            reason = fault.reason if fault.reason.startswith("holds ") else f"holds an element that {fault.reason}"
            raise Unrepresentable(reason) from None
        finally:
            self.in_set -= 1
        return out

    def _mapping(self, value: dict[Any, Any], hint: Hint, path: Path, depth: int) -> dict[str, Any]:
        keys: dict[str, tuple[Hint, bool]] = {}
        if hint.typed_dict is not None and hint.values is None:
            keys = typed_dict_keys(hint.typed_dict)
        elif not self.in_set:
            self.open.add(path)
        unlisted = (hint.values or UNKNOWN, False)
        out: dict[str, Any] = {}
        seen = set()
        for key, item in dict.items(value):
            if not issubclass(type(key), str):
                raise Unrepresentable("is a dict with a key that is not a string")
            name = self._text(str.__str__(key))
            if name in RESERVED_KEYS:  # [A3]
                raise Unrepresentable(f"is a dict with the key {name}, which Cedar reserves")
            if name in seen:
                raise Unrepresentable("is a dict with two keys of the same text")
            seen.add(name)
            self._member(out, name, item, keys.get(name, unlisted)[0], path, depth)
        for name, (_, required) in keys.items():
            if required and name not in seen:  # [A5]
                self._refuse((*path, name), "is a required key that is missing")
        return out

    def _instance(self, value: Any, plan: ClassPlan, path: Path, depth: int) -> Any:
        if plan.kind == "root":
            root = value.__dict__["root"]
            if root is None:
                raise Unrepresentable("is a model whose root is None")
            return self._convert(root, plan.fields[0][1], path, depth)
        out: dict[str, Any] = {}
        own: Mapping[str, Any] = value.__dict__ if plan.kind == "model" else {}
        for index, (name, hint) in enumerate(plan.fields):
            try:
                if plan.kind == "attributes":
                    item = getattr(value, name)
                elif plan.kind == "model":
                    item = own[name]
                else:
                    item = tuple.__getitem__(value, index)
            except KeyboardInterrupt:
                raise
            except BaseException:  # [A1] a property raised, a field was never set
                self._refuse((*path, name), "could not be read")
                continue
            kind = type(item)
            if (
                (kind is str and len(item) <= _SHORT and item.isascii())
                or (kind is int and hint.number != "decimal" and LONG_MIN <= item <= LONG_MAX)
                or kind is bool
            ):
                out[name] = item
                if kind is str:
                    self.characters += len(item)
            else:
                self._member(out, name, item, hint, path, depth)
        self._count(len(plan.fields))
        if plan.open:
            self._extras(out, value, path, depth)
        if not RESERVED_KEYS.isdisjoint(out):  # [A3]
            raise Unrepresentable("has a field with a name that Cedar reserves")
        return out

    def _extras(self, out: dict[str, Any], value: Any, path: Path, depth: int) -> None:
        if not self.in_set:
            self.open.add(path)
        for name, item in dict.items(cast(dict[str, Any], value.__pydantic_extra__ or {})):
            if type(name) is not str or name in out:
                raise Unrepresentable("has an extra field whose name is no string or is taken")
            self._member(out, self._text(name), item, UNKNOWN, path, depth)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
