"""What the type hints of a value say that the value itself does not: may it be None, which keys does a dict declare,
and is a whole number one of a kind that also has fractions.
"""

import collections.abc
import dataclasses
import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Annotated, Any, Literal, NewType, NotRequired, Required, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, RootModel

#: A recursive alias (``type Json = dict[str, Json]``) has no end; what lies deeper than this counts as not declared.
MAX_HINT_DEPTH = 8

#: Cedar JSON reads a record with one of these keys as an escape: data could pose as an entity or an extension value.
RESERVED_KEYS = frozenset({"__entity", "__extn", "__expr"})


@dataclass(frozen=True, slots=True)
class Hint:
    """What a type hint declares about a value.

    Args:
        optional: None is one of the declared values.
        items: What is declared for the elements of a list, set or tuple.
        values: What is declared for the values of a dict with any keys.
        typed_dict: The TypedDict that declares the keys of a dict.
        number: ``decimal`` where fractions are declared, so that a whole number is a decimal, too; ``long`` where none
            are, so that a fraction is not what is declared.
    """

    optional: bool = False
    items: "Hint | None" = None
    values: "Hint | None" = None
    typed_dict: type | None = None
    number: Literal["", "long", "decimal"] = ""


#: Nothing is declared.
UNKNOWN = Hint()
_OPTIONAL = Hint(optional=True)


@dataclass(frozen=True, slots=True)
class ClassPlan:
    """How the instances of a class become a Cedar record.

    Args:
        kind: Where the fields are read from.
        fields: Name and hint of each declared field; a default of None makes the hint optional.
        open: Instances can have further keys that are not declared.
    """

    kind: Literal["attributes", "model", "root", "tuple"]
    fields: tuple[tuple[str, Hint], ...]
    open: bool = False


def optional(hint: Hint) -> Hint:
    """Return the same hint with None allowed."""
    return hint if hint.optional else dataclasses.replace(hint, optional=True)


def resolved_hints(target: Any, *, include_extras: bool = False) -> dict[str, Any]:
    """Return the resolved type hints of a function or class, none at all where one cannot be resolved.

    Args:
        target: A function or a class.
        include_extras: Keep ``Annotated``, ``Required`` and ``NotRequired``.

    Returns:
        Hints by name; empty means that nothing is declared, which only ever makes the conversion stricter.
    """
    try:
        return typing.get_type_hints(target, include_extras=include_extras)
    except Exception:
        return {}


def hint_of(annotation: Any, depth: int = MAX_HINT_DEPTH) -> Hint:
    """Return what an annotation declares; what is not understood declares nothing.

    Args:
        annotation: A resolved type hint.
        depth: How many levels of nested annotations are followed.
    """
    if annotation is None or annotation is type(None):
        return _OPTIONAL
    if depth == 0:
        return UNKNOWN
    try:
        return _parse(annotation, depth - 1)
    except Exception:
        # An alias whose value cannot be evaluated, a hostile metaclass: nothing is declared.
        return UNKNOWN


def _parse(annotation: Any, depth: int) -> Hint:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Union or origin is types.UnionType:
        return _union([hint_of(member, depth) for member in args])
    if is_qualifier(origin):
        return hint_of(args[0], depth)
    if origin is Literal:
        return Hint(optional=None in args)
    if isinstance(annotation, NewType):
        return hint_of(annotation.__supertype__, depth)
    if isinstance(annotation, TypeVar):
        bounds = annotation.__constraints__ or (annotation.__bound__ or Any,)
        return _union([hint_of(bound, depth) for bound in bounds])
    if is_alias(alias := origin or annotation):
        return hint_of(alias.__value__, depth)
    kind = origin or annotation
    if is_typed_dict(kind):
        return Hint(typed_dict=kind)
    if not isinstance(kind, type) or issubclass(kind, str | bytes):
        return UNKNOWN
    if issubclass(kind, collections.abc.Mapping):
        return Hint(values=hint_of(args[1], depth) if len(args) == 2 else UNKNOWN)
    if issubclass(kind, tuple):
        items = [hint_of(item, depth) for item in args if item is not Ellipsis]
        return Hint(items=items[0] if items and all(item == items[0] for item in items) else UNKNOWN)
    if issubclass(kind, collections.abc.Iterable) and len(args) == 1:
        return Hint(items=hint_of(args[0], depth))
    return Hint(number=_number(kind))


def _number(kind: type) -> Literal["", "long", "decimal"]:
    if issubclass(kind, bool | Enum):
        return ""
    return "decimal" if issubclass(kind, float | Decimal) else "long" if issubclass(kind, int) else ""


def _union(members: list[Hint]) -> Hint:
    typed = [member.typed_dict for member in members if member.typed_dict is not None]
    values = [member.values for member in members if member.values is not None]
    items = [member.items for member in members if member.items is not None]
    numbers = {member.number for member in members if member != _OPTIONAL}
    ambiguous = len(typed) + len(values) > 1
    return Hint(
        optional=any(member.optional for member in members),
        items=items[0] if items and all(item == items[0] for item in items) else None,
        values=UNKNOWN if ambiguous else (values[0] if values else None),
        typed_dict=typed[0] if typed and not ambiguous else None,
        number="decimal" if "decimal" in numbers else "long" if numbers == {"long"} else "",
    )


def is_qualifier(origin: Any) -> bool:
    """Tell whether an annotation such as ``Annotated[T, ...]`` or ``NotRequired[T]`` says something about its ``T``."""
    return origin in (Annotated, Required, NotRequired) or getattr(origin, "_name", "") == "ReadOnly"


def is_alias(annotation: Any) -> bool:
    """Tell whether an annotation was made by a ``type`` statement (PEP 695) or by its backport."""
    return type(annotation).__name__ == "TypeAliasType"


def is_typed_dict(kind: Any) -> bool:
    """Tell whether a class is a TypedDict, of ``typing`` or of ``typing_extensions``."""
    return isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__required_keys__")


@lru_cache(maxsize=4096)
def typed_dict_keys(cls: Any) -> dict[str, tuple[Hint, bool]]:
    """Return the declared keys of a TypedDict, each with its hint and whether it is required (PEP 655)."""
    keys: dict[str, tuple[Hint, bool]] = {}
    required = cls.__required_keys__
    hints = resolved_hints(cls, include_extras=True) or dict.fromkeys([*required, *cls.__optional_keys__])
    for name, annotation in hints.items():
        # Under postponed annotations ``__required_keys__`` misses the qualifier, so the resolved hint decides.
        said = _required(annotation)
        needed = name in required if said is None else said
        keys[name] = (UNKNOWN if annotation is None else hint_of(annotation), needed)
    return keys


def _required(annotation: Any) -> bool | None:
    """What the qualifiers of a key say: they stand in one another in any order."""
    origin = get_origin(annotation)
    if origin in (Required, NotRequired):
        return origin is Required
    return _required(get_args(annotation)[0]) if is_qualifier(origin) else None


@lru_cache(maxsize=4096)
def plan_of(cls: type) -> ClassPlan | None:
    """Return how instances of a class become a record: dataclasses, Pydantic models and named tuples, else None."""
    plan: ClassPlan | None = None
    if issubclass(cls, RootModel):
        plan = ClassPlan("root", (("root", hint_of(cls.model_fields["root"].annotation)),))
    elif issubclass(cls, BaseModel):
        fields = tuple((name, _field_hint(info.annotation, info.default)) for name, info in cls.model_fields.items())
        plan = ClassPlan("model", fields, open=cls.model_config.get("extra") == "allow")
    elif dataclasses.is_dataclass(cls):
        hints = resolved_hints(cls)
        plan = ClassPlan(
            "attributes",
            tuple((field.name, _field_hint(hints.get(field.name, Any), field.default)) for field in _fields(cls)),
        )
    elif issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple):
        hints = resolved_hints(cls)
        defaults: dict[str, Any] = getattr(cls, "_field_defaults", {})
        names: tuple[str, ...] = cls._fields  # type: ignore[attr-defined]
        plan = ClassPlan(
            "tuple", tuple((name, _field_hint(hints.get(name, Any), defaults.get(name, ...))) for name in names)
        )
    return plan


def _fields(cls: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cls)


def _field_hint(annotation: Any, default: Any) -> Hint:
    hint = hint_of(annotation)
    return optional(hint) if default is None else hint


def hinted_function(fn: Callable[..., Any]) -> Any:
    """Return the function that carries the hints of a callable: below partials, bound methods and ``__call__``."""
    target: Any = fn
    while hasattr(target, "func") and not inspect.isroutine(target):
        target = target.func
    if not inspect.isroutine(target) and not inspect.isclass(target):
        target = type(target).__call__
    return inspect.unwrap(target)
