"""Python type hints as Cedar types: what an activity's arguments look like to policies.

What a value becomes is decided by :mod:`exequatur.policy.arguments`; here the same is told from the declaration alone.

Rules:

H1  Whatever the annotation is, there is an answer: a Cedar type, or why there is none.
H2  Nothing is guessed. A type is given only where every value of the declaration has it, or has no Cedar form at all;
    what is left out is named with its path and the reason.
H3  What a set would hold is left out as a whole if a part of it has no type: policies compare elements as wholes.
H4  Depth and size are bounded.
"""

import collections.abc
import dataclasses
import datetime
import inspect
import ipaddress
import types
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, NewType, TypeVar, Union, get_args, get_origin

import pydantic
from pydantic import BaseModel, RootModel

from exequatur.policy.declared import Field, fields_of
from exequatur.policy.generics import Variables, bound, identity, inherited, is_text, name_of, substituted
from exequatur.policy.hints import RESERVED_KEYS, hint_of, hinted_function, is_alias, is_qualifier, resolved_hints
from exequatur.policy.notes import choices, constraints, noted, summary_of
from exequatur.policy.types import (
    BOOL,
    DATETIME,
    DECIMAL,
    DURATION,
    IPADDR,
    LONG,
    STRING,
    Attribute,
    CedarType,
    Path,
    RecordType,
    SetType,
    written,
)

#: Real arguments are nested some five levels; the conversion of values stops at 32.
MAX_DEPTH = 24
#: Of one activity. More than anybody writes down, and a bound on what models that hold each other many times become.
MAX_ATTRIBUTES = 1000

#: By exact class, as values are converted.
_SCALARS: Mapping[Any, CedarType] = {
    bool: BOOL,
    int: LONG,
    float: DECIMAL,
    Decimal: DECIMAL,
    str: STRING,
    uuid.UUID: STRING,
    datetime.datetime: DATETIME,
    datetime.timedelta: DURATION,
    ipaddress.IPv4Address: IPADDR,
    ipaddress.IPv4Network: IPADDR,
    ipaddress.IPv6Address: IPADDR,
    ipaddress.IPv6Network: IPADDR,
    # Pydantic's classes for what it validates into one of the above.
    pydantic.AwareDatetime: DATETIME,
    pydantic.FutureDatetime: DATETIME,
    pydantic.PastDatetime: DATETIME,
    pydantic.EmailStr: STRING,
    pydantic.IPvAnyAddress: IPADDR,
    pydantic.IPvAnyNetwork: IPADDR,
}
_WITHOUT: Mapping[Any, str] = {
    Any: "is of any type",
    object: "is of any type",
    type(None): "is always None",
    bytes: "is bytes, which Cedar cannot represent",
    bytearray: "is bytes, which Cedar cannot represent",
    datetime.date: "is a date without time and time zone; Cedar knows only points in time",
    datetime.time: "is a time of day, which Cedar cannot represent",
    pydantic.NaiveDatetime: "is a datetime without a time zone",
}
_SEQUENCES = (list, tuple, set, frozenset)
_ABSTRACT_SEQUENCES = frozenset(
    {
        collections.abc.Collection,
        collections.abc.MutableSequence,
        collections.abc.MutableSet,
        collections.abc.Sequence,
        collections.abc.Set,
    }
)
_ABSTRACT_MAPPINGS = frozenset({collections.abc.Mapping, collections.abc.MutableMapping})


@dataclass(frozen=True, slots=True)
class Omitted:
    """There is no Cedar type.

    Args:
        reason: A predicate that follows the dotted name.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class DictType(RecordType):
    """A dict: a record whose keys are data.

    Args:
        values: The type of every value; None where they have none in common.
    """

    values: CedarType | None = None


@dataclass(frozen=True, slots=True)
class Arguments:
    """The parameters of an activity.

    Args:
        names: Their names in order, also of those that have no type; the last is ``*name`` where it takes the rest.
        record: The type of ``context.args``.
        omitted: What is left out of it: path and a predicate.
    """

    names: tuple[str, ...]
    record: RecordType
    omitted: tuple[tuple[Path, str], ...]


def shape_of(annotation: Any) -> CedarType | Omitted:
    """Return the Cedar type of the values that an annotation declares; None among them is disregarded.

    Args:
        annotation: A resolved type hint.
    """
    found = _Reader().shape(annotation, (), {})
    return Omitted(found.reason) if found.type is None else found.type


def arguments_of(fn: Callable[..., Any]) -> Arguments:
    """Return what the arguments of an activity look like to policies.

    Args:
        fn: The activity as it will be called; a bound ``self`` is no parameter.
    """
    reader = _Reader()
    try:
        parameters = list(inspect.signature(fn).parameters.values())
        hints = resolved_hints(hinted_function(fn), include_extras=True)
    except Exception:  # [H1] a callable that is written in C, or lies about its signature
        return Arguments((), RecordType(), (((), "cannot be told: Python does not know its parameters"),))
    attributes, names = [], []
    for parameter in parameters:
        name, path = parameter.name, (parameter.name,)
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue  # Temporal passes arguments by position
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            reader.omit(path, "can only be given by keyword, and Temporal passes arguments by position")
            continue
        rest = parameter.kind is inspect.Parameter.VAR_POSITIONAL
        names.append(f"*{name}" if rest else name)
        if name in RESERVED_KEYS:
            reader.omit(path, "has a name that Cedar reserves")
        elif name not in hints:
            reader.omit(path, "has no type hint, or none that can be resolved")
        else:
            annotation: Any = hints[name]
            if rest:
                annotation = tuple.__class_getitem__((annotation, ...))
            given = rest or parameter.default is inspect.Parameter.empty
            attributes += reader.attribute(name, annotation, path, {}, required=given)
    return Arguments(tuple(names), RecordType(tuple(attributes)), tuple(reader.omitted.items()))


@dataclass(frozen=True, slots=True)
class _Shape:
    """What was read: a type, or the reason why there is none."""

    type: CedarType | None
    reason: str = ""
    optional: bool = False
    notes: tuple[str, ...] = ()


class _Reader:
    """Reads the annotations of one activity."""

    def __init__(self, outer: "_Reader | None" = None) -> None:
        self.omitted: dict[Path, str] = {}
        self._stack: list[Any] = outer._stack if outer else []
        self._count: list[int] = outer._count if outer else [0]

    def omit(self, path: Path, reason: str) -> None:
        self.omitted[path] = reason

    def attribute(
        self,
        name: str,
        annotation: Any,
        path: Path,
        variables: Variables,
        *,
        required: bool = True,
        metadata: Iterable[Any] = (),
    ) -> list[Attribute]:
        """The attribute for a field or parameter; none where it is left out."""
        self._count[0] += 1
        if self._count[0] > MAX_ATTRIBUTES:  # [H4]
            found = _Shape(None, f"comes after the {MAX_ATTRIBUTES} attributes that an activity can have")
        else:
            found = self.shape(annotation, path, variables)
        if found.type is None:
            self.omit(path, found.reason)
            return []
        doc = noted((*constraints(metadata), *found.notes))
        return [Attribute(name, found.type, required and not found.optional, (("doc", doc),) if doc else ())]

    def shape(self, annotation: Any, path: Path, variables: Variables) -> _Shape:
        """Read an annotation; never raises."""
        marker = identity(annotation)
        if len(self._stack) > MAX_DEPTH:  # [H4]
            return _Shape(None, f"is nested more than {MAX_DEPTH} levels deep")
        if marker in self._stack:
            return _Shape(None, f"refers to itself ({name_of(annotation)})")
        self._stack.append(marker)
        try:
            return self._read(annotation, path, variables)
        except Exception:  # [H1] an alias that cannot be evaluated, a metaclass that raises
            return _Shape(None, "has a type hint that cannot be read")
        finally:
            self._stack.pop()

    def _read(self, annotation: Any, path: Path, variables: Variables) -> _Shape:
        origin, args = get_origin(annotation), get_args(annotation)
        if annotation is None:
            return _Shape(None, _WITHOUT[type(None)], optional=True)
        if isinstance(annotation, TypeVar):
            return self._variable(annotation, path, variables)
        if origin is Union or origin is types.UnionType:
            return self._union(args, path, variables, number=hint_of(substituted(annotation, variables)).number)
        if is_qualifier(origin):
            found = self.shape(args[0], path, variables)
            return dataclasses.replace(found, notes=(*found.notes, *constraints(args[1:])))
        if origin is Literal:
            return _members([each for each in args if each is not None], optional=None in args)
        if isinstance(annotation, NewType):
            return self.shape(annotation.__supertype__, path, variables)
        kind = origin or annotation
        if is_alias(kind):
            return self.shape(kind.__value__, path, {**variables, **bound(kind, args, variables)})
        if isinstance(kind, type) or kind in _WITHOUT:
            return self._class(kind, args, path, {**variables, **inherited(kind, args, variables)})
        return _Shape(None, f"is declared as {name_of(annotation)}, which Cedar cannot represent")

    def _class(self, kind: Any, args: tuple[Any, ...], path: Path, variables: Variables) -> _Shape:
        if kind in _SCALARS:
            return _Shape(_SCALARS[kind])
        if kind in _WITHOUT:
            return _Shape(None, _WITHOUT[kind], optional=kind is type(None))
        if issubclass(kind, Enum):
            return _members([each.value for each in kind])
        if issubclass(kind, RootModel):
            info = kind.model_fields["root"]
            found = self.shape(info.annotation, path, variables)
            if found.optional:
                return _Shape(None, "is a model whose root may be None")
            return dataclasses.replace(found, notes=(*found.notes, *constraints([info])))
        fields = fields_of(kind)
        if fields is not None:
            return self._record(kind, fields, path, variables)
        if issubclass(kind, dict) or kind in _ABSTRACT_MAPPINGS:
            return self._dict(args, path, variables)
        if issubclass(kind, _SEQUENCES) or kind in _ABSTRACT_SEQUENCES:
            return self._set(kind, args, variables)
        for base in (str, int, float):
            if issubclass(kind, base):
                return _Shape(_SCALARS[base])
        return _Shape(None, f"is of type {name_of(kind)}, which Cedar cannot represent")

    def _record(self, kind: Any, fields: Sequence[Field], path: Path, variables: Variables) -> _Shape:
        if not RESERVED_KEYS.isdisjoint(field.name for field in fields):
            return _Shape(None, "has a field with a name that Cedar reserves")
        attributes = []
        for field in fields:
            here = (*path, field.name)
            if field.annotation is inspect.Parameter.empty:
                self.omit(here, "has no type hint, or none that can be resolved")
            else:
                attributes += self.attribute(
                    field.name, field.annotation, here, variables, required=field.required, metadata=field.metadata
                )
        if issubclass(kind, BaseModel) and kind.model_config.get("extra") == "allow":
            self.omit((*path, "*"), "are further fields that are not declared")
        about = summary_of(kind)
        return _Shape(RecordType(tuple(attributes)), notes=(about,) if about else ())

    def _dict(self, args: tuple[Any, ...], path: Path, variables: Variables) -> _Shape:
        keys, values = args if len(args) == 2 else (str, Any)
        if not is_text(substituted(keys, variables)):
            return _Shape(None, "is a dict whose keys are not strings")
        # Policies name a key of the dict, so the path of a value is not known here.
        inner = _Reader(self)
        found = inner.shape(values, (*path, "*"), variables)
        whole = found.type is not None and not inner.omitted
        return _Shape(DictType((), found.type if whole else None), notes=found.notes if whole else ())

    def _set(self, kind: Any, args: tuple[Any, ...], variables: Variables) -> _Shape:
        declared = [each for each in args if each is not Ellipsis]
        if not declared:
            return _Shape(None, "is a list whose elements have no declared type")
        if len(declared) > 1 and not issubclass(kind, tuple):
            return _Shape(None, f"is declared as {name_of(kind)}, which Cedar cannot represent")
        found: list[_Shape] = []
        for item in declared:
            inner = _Reader(self)
            element = inner.shape(item, (), variables)
            if element.type is None:
                return _Shape(None, f"holds elements of which one {element.reason}")
            if inner.omitted:  # [H3]
                where, reason = next(iter(inner.omitted.items()))
                return _Shape(None, f"holds elements of which {'.'.join(where)} {reason}")
            if _holds_dict(element.type):  # [H3]
                return _Shape(None, "holds dicts, whose keys are data")
            found.append(element)
        if any(each.type != found[0].type for each in found):
            kinds = " and ".join(dict.fromkeys(written(each.type) for each in found if each.type is not None))
            return _Shape(None, f"is a tuple of several types ({kinds})")
        notes = tuple(f"each: {note}" for note in found[0].notes)
        return _Shape(SetType(found[0].type) if found[0].type is not None else None, notes=notes)

    def _variable(self, variable: Any, path: Path, variables: Variables) -> _Shape:
        if variable in variables:
            return self.shape(variables[variable], path, {})
        if variable.__constraints__:
            number = hint_of(variable).number
            return self._union(variable.__constraints__, path, variables, number=number)
        if variable.__bound__ is not None:
            return self.shape(variable.__bound__, path, variables)
        return _Shape(None, f"is of the type variable {variable.__name__}, which nothing binds")

    def _union(self, members: Iterable[Any], path: Path, variables: Variables, *, number: str) -> _Shape:
        given = [each for each in members if each not in (None, type(None))]
        optional = len(given) < len(tuple(members))
        if not given:
            return _Shape(None, _WITHOUT[type(None)], optional=True)
        readers = [_Reader(self) for _ in given]
        found = [reader.shape(each, path, variables) for reader, each in zip(readers, given, strict=True)]
        optional = optional or any(each.optional for each in found)
        for each in found:
            if each.type is None:
                return _Shape(None, each.reason, optional)
        kinds = [each.type for each in found if each.type is not None]
        notes = tuple(dict.fromkeys(note for each in found for note in each.notes))
        records = [each for each in kinds if isinstance(each, RecordType)]
        if len(records) == len(kinds) > 1 and not any(isinstance(each, DictType) for each in records):
            for reader in readers:
                self.omitted.update(reader.omitted)
            return _Shape(self._merged(records, path), optional=optional)
        if all(each == kinds[0] for each in kinds):
            for reader in readers:
                self.omitted.update(reader.omitted)
            return _Shape(kinds[0], optional=optional, notes=notes if len(kinds) == 1 else _apart(found))
        if set(kinds) <= {LONG, DECIMAL} and number == "decimal":
            return _Shape(DECIMAL, optional=optional, notes=_apart(found))
        several = " or a ".join(dict.fromkeys(_plainly(each) for each in kinds))
        return _Shape(None, f"may be a {several}", optional)

    def _merged(self, records: Sequence[RecordType], path: Path) -> RecordType:
        """One record for several: what all of them always have is required."""
        merged = []
        for name in dict.fromkeys(attribute.name for record in records for attribute in record.attributes):
            here = (*path, name)
            found = [attribute for record in records if (attribute := record.get(name)) is not None]
            if here in self.omitted:
                continue
            if any(each.type != found[0].type for each in found):
                self.omit(here, "has another type in each of the classes that it may be a field of")
                continue
            required = len(found) == len(records) and all(each.required for each in found)
            docs = dict.fromkeys(text for each in found for key, text in each.annotations if key == "doc")
            doc = noted([" or ".join(docs)]) if docs else ""
            merged.append(Attribute(name, found[0].type, required, (("doc", doc),) if doc else ()))
        return RecordType(tuple(merged))


def _members(values: Sequence[Any], *, optional: bool = False) -> _Shape:
    """The one type of the members of an Enum or Literal."""
    plain = [each.value if isinstance(each, Enum) else each for each in values]
    kinds = {_SCALARS.get(type(each)) or _subclassed(each) for each in plain}
    if len(kinds) != 1 or (kind := kinds.pop()) is None:
        return _Shape(None, "has members of several types, or of one that Cedar does not know", optional)
    return _Shape(kind, optional=optional, notes=choices(plain))


def _subclassed(value: Any) -> CedarType | None:
    return next((_SCALARS[base] for base in (str, int, float) if isinstance(value, base)), None)


def _apart(found: Sequence[_Shape]) -> tuple[str, ...]:
    """Notes of the members of a union: each holds only for its own."""
    notes = [", ".join(each.notes) for each in found]
    return (" or ".join(dict.fromkeys(notes)),) if all(notes) else ()


def _plainly(kind: CedarType) -> str:
    return "dict" if isinstance(kind, DictType) else "record" if isinstance(kind, RecordType) else written(kind)


def _holds_dict(kind: CedarType) -> bool:
    if isinstance(kind, SetType):
        return _holds_dict(kind.element)
    if isinstance(kind, RecordType):
        return isinstance(kind, DictType) or any(_holds_dict(each.type) for each in kind.attributes)
    return False
