"""Generic classes and aliases: what their type variables stand for, and when an annotation is met inside of itself."""

from collections.abc import Mapping
from typing import Any, Literal, NewType, TypeVar, get_args, get_origin

from exequatur.policy.hints import is_alias, is_qualifier

Variables = Mapping[Any, Any]
"""What type variables stand for."""


def substituted(annotation: Any, variables: Variables) -> Any:
    """Return an annotation with its type variables replaced, as far as ``typing`` can do that."""
    if isinstance(annotation, TypeVar):
        return variables.get(annotation, annotation)
    parameters = getattr(annotation, "__parameters__", ())
    if not parameters or isinstance(annotation, type):
        return annotation
    return annotation[tuple(variables.get(each, each) for each in parameters)]


def bound(kind: Any, args: tuple[Any, ...], variables: Variables) -> dict[Any, Any]:
    """Return what the type variables of a generic class or alias stand for."""
    parameters = getattr(kind, "__parameters__", ()) or getattr(kind, "__type_params__", ())
    return {name: substituted(value, variables) for name, value in zip(parameters, args, strict=False)}


def inherited(kind: Any, args: tuple[Any, ...], variables: Variables) -> dict[Any, Any]:
    """Return what the type variables of a class and of its generic bases stand for."""
    found = bound(kind, args, variables)
    for base in getattr(kind, "__orig_bases__", ()):
        origin = get_origin(base)
        if isinstance(origin, type) and getattr(origin, "__parameters__", None):
            found = {**inherited(origin, get_args(base), {**variables, **found}), **found}
    return found


def identity(annotation: Any) -> Any:
    """Return what tells that an annotation is met again inside of itself; only classes and aliases can be."""
    kind = get_origin(annotation) or annotation
    named = is_alias(kind) or (isinstance(kind, type) and kind.__module__ not in ("builtins", "collections.abc"))
    return (kind, repr(get_args(annotation))) if named else object()


def is_text(annotation: Any) -> bool:
    """Tell whether the keys of a dict are declared as instances of ``str``."""
    if isinstance(annotation, NewType):
        return is_text(annotation.__supertype__)
    if is_qualifier(get_origin(annotation)):
        return is_text(get_args(annotation)[0])
    if is_alias(annotation):
        return is_text(annotation.__value__)
    if get_origin(annotation) is Literal:
        return all(isinstance(each, str) for each in get_args(annotation))
    return isinstance(annotation, type) and issubclass(annotation, str)


def name_of(annotation: Any) -> str:
    """Return how sentences call an annotation."""
    name = getattr(annotation, "__name__", None)
    return (name if isinstance(name, str) else repr(annotation))[:80]
