"""What the type hints of a value say that the value itself does not: may it be None, which keys does a dict declare."""

import collections.abc
import dataclasses
import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
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
    """

    optional: bool = False
    items: "Hint | None" = None
    values: "Hint | None" = None
    typed_dict: type | None = None


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
    if origin in (Annotated, Required, NotRequired):
        return hint_of(args[0], depth)
    if origin is Literal:
        return Hint(optional=None in args)
    if isinstance(annotation, NewType):
        return hint_of(annotation.__supertype__, depth)
    if isinstance(annotation, TypeVar):
        return UNKNOWN
    if type(annotation).__name__ == "TypeAliasType":
        return hint_of(annotation.__value__, depth)
    kind = origin or annotation
    if typing.is_typeddict(kind):
        return Hint(typed_dict=kind)
    if not isinstance(kind, type) or issubclass(kind, str | bytes):
        return UNKNOWN
    if issubclass(kind, collections.abc.Mapping):
        return Hint(values=hint_of(args[1], depth) if len(args) == 2 else UNKNOWN)
    if issubclass(kind, tuple):
        return Hint(items=hint_of(args[0], depth) if len(args) == 2 and args[1] is Ellipsis else UNKNOWN)
    if issubclass(kind, collections.abc.Iterable) and len(args) == 1:
        return Hint(items=hint_of(args[0], depth))
    return UNKNOWN


def _union(members: list[Hint]) -> Hint:
    typed = [member.typed_dict for member in members if member.typed_dict is not None]
    values = [member.values for member in members if member.values is not None]
    items = [member.items for member in members if member.items is not None]
    ambiguous = len(typed) + len(values) > 1
    return Hint(
        optional=any(member.optional for member in members),
        items=items[0] if len(items) == 1 else None,
        values=UNKNOWN if ambiguous else (values[0] if values else None),
        typed_dict=typed[0] if typed and not ambiguous else None,
    )


@lru_cache(maxsize=4096)
def typed_dict_keys(cls: Any) -> dict[str, tuple[Hint, bool]]:
    """Return the declared keys of a TypedDict, each with its hint and whether it is required (PEP 655)."""
    keys: dict[str, tuple[Hint, bool]] = {}
    required = cls.__required_keys__
    hints = resolved_hints(cls, include_extras=True) or dict.fromkeys([*required, *cls.__optional_keys__])
    for name, annotation in hints.items():
        # Under postponed annotations ``__required_keys__`` misses the qualifier, so the resolved hint decides.
        origin = get_origin(annotation)
        needed = origin is Required or (origin is not NotRequired and name in required)
        keys[name] = (UNKNOWN if annotation is None else hint_of(annotation), needed)
    return keys


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
