"""The declared fields of the classes whose instances become records."""

import dataclasses
import inspect
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from exequatur.policy.hints import is_typed_dict, resolved_hints, typed_dict_keys


@dataclass(frozen=True, slots=True)
class Field:
    """A declared field of a class; ``annotation`` is ``inspect.Parameter.empty`` where there is none."""

    name: str
    annotation: Any
    required: bool = True
    metadata: tuple[Any, ...] = ()


def fields_of(kind: Any) -> list[Field] | None:
    """The fields of a class whose instances become records, else None; the classes are those of ``plan_of``."""
    if issubclass(kind, BaseModel):
        return [
            Field(name, info.annotation, info.default is not None, (info,)) for name, info in kind.model_fields.items()
        ]
    hints = resolved_hints(kind, include_extras=True)
    nothing = inspect.Parameter.empty
    if is_typed_dict(kind):
        return [
            Field(name, hints.get(name, nothing), required) for name, (_, required) in typed_dict_keys(kind).items()
        ]
    if dataclasses.is_dataclass(kind):
        return [
            Field(field.name, hints.get(field.name, nothing), field.default is not None, (field,))
            for field in dataclasses.fields(kind)
        ]
    if issubclass(kind, tuple) and isinstance(getattr(kind, "_fields", None), tuple):
        defaults: dict[str, Any] = getattr(kind, "_field_defaults", {})
        return [Field(name, hints.get(name, nothing), defaults.get(name, ...) is not None) for name in kind._fields]
    return None
