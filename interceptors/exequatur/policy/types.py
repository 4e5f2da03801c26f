"""Cedar's types as data (docs.cedarpolicy.com, "Schema grammar")."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from exequatur.policy.syntax import quoted

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Primitive:
    """A type without parts: Bool, Long, String, decimal, datetime, duration or ipaddr."""

    name: str


@dataclass(frozen=True, slots=True)
class EntityType:
    """An entity of one type."""

    name: str


@dataclass(frozen=True, slots=True)
class SetType:
    """A set of values of one type."""

    element: "CedarType"


@dataclass(frozen=True, slots=True)
class Attribute:
    """A member of a record.

    Args:
        name: Its name.
        type: Its type.
        required: It is always there.
        annotations: What the schema notes about it; says nothing about values, so it does not count in comparisons.
    """

    name: str
    type: "CedarType"
    required: bool = True
    annotations: tuple[tuple[str, str], ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class RecordType:
    """A record with the given attributes and no others."""

    attributes: tuple[Attribute, ...] = ()

    def get(self, name: str) -> Attribute | None:
        """Return an attribute by its name."""
        return next((each for each in self.attributes if each.name == name), None)


CedarType = Primitive | EntityType | SetType | RecordType

BOOL: Final = Primitive("Bool")
LONG: Final = Primitive("Long")
STRING: Final = Primitive("String")
DECIMAL: Final = Primitive("decimal")
DATETIME: Final = Primitive("datetime")
DURATION: Final = Primitive("duration")
IPADDR: Final = Primitive("ipaddr")

PRIMITIVES: Final = {each.name: each for each in (BOOL, LONG, STRING, DECIMAL, DATETIME, DURATION, IPADDR)}

#: Words that Cedar reads as its own where a name could stand.
_RESERVED: Final = frozenset({"if", "then", "else", "true", "false", "in", "is", "like", "has", "__cedar"})
_OF_PYTHON: Final[dict[type, Primitive]] = {bool: BOOL, int: LONG, str: STRING}
_OF_CONSTRUCTOR: Final = {"decimal": DECIMAL, "datetime": DATETIME, "duration": DURATION, "ip": IPADDR}


def misfit(value: Any, declared: CedarType, path: Path = ()) -> tuple[Path, str] | None:
    """Return the first part of a Cedar JSON value that has another type than the declared one.

    An attribute that is absent is no misfit: Cedar reports an error when a policy reads it.

    Args:
        value: A value in Cedar JSON as :mod:`exequatur.policy.arguments` makes it.
        declared: Its type.
        path: Where it stands.

    Returns:
        Path and predicate, for example ``(("order", "amount"), "is a Long where the schema declares a decimal")``.
    """
    if isinstance(declared, RecordType):
        if type(value) is not dict or "__extn" in value or "__entity" in value:
            return path, _instead(value, declared)
        for name, item in value.items():
            attribute = declared.get(name)
            if attribute is None:
                return (*path, name), "is not declared in the schema"
            found = misfit(item, attribute.type, (*path, name))
            if found is not None:
                return found
        return None
    if isinstance(declared, SetType):
        if type(value) is not list:
            return path, _instead(value, declared)
        for item in value:
            found = misfit(item, declared.element, path)
            if found is not None:
                return path, f"holds an element that {found[1]}"
        return None
    return None if _name_of(value) == declared.name else (path, _instead(value, declared))


def written(declared: CedarType) -> str:
    """Return a type in Cedar's schema syntax, on one line."""
    if isinstance(declared, RecordType):
        inner = ", ".join(
            f"{attribute_name(each.name)}{'' if each.required else '?'}: {written(each.type)}"
            for each in declared.attributes
        )
        return f"{{ {inner} }}" if inner else "{}"
    return f"Set<{written(declared.element)}>" if isinstance(declared, SetType) else declared.name


def attribute_name(name: str) -> str:
    """Return an attribute's name as a schema or policy writes it."""
    plain = name.isascii() and name.isidentifier() and name not in _RESERVED
    return name if plain else quoted(name)


def attributes_of(record: RecordType, path: Path = ()) -> Iterator[tuple[Path, Attribute]]:
    """Yield every attribute of a record and of the records in it, with its path."""
    for attribute in record.attributes:
        here = (*path, attribute.name)
        yield here, attribute
        if isinstance(attribute.type, RecordType):
            yield from attributes_of(attribute.type, here)


def _instead(value: Any, declared: CedarType) -> str:
    name = "record" if isinstance(declared, RecordType) else written(declared)
    return f"is a {_name_of(value)} where the schema declares a {name}"


def _name_of(value: Any) -> str:
    kind = type(value)
    if kind in _OF_PYTHON:
        return _OF_PYTHON[kind].name
    if kind is list:
        return "Set"
    if kind is dict and len(value) == 1:
        extension, entity = value.get("__extn"), value.get("__entity")
        if isinstance(extension, dict):
            constructed = _OF_CONSTRUCTOR.get(extension.get("fn", ""))
            return constructed.name if constructed else "value of an unknown kind"
        if isinstance(entity, dict):
            return str(entity.get("type"))
    return "record" if kind is dict else "value of an unknown kind"
