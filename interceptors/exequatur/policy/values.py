"""Plain JSON or YAML values as Cedar JSON, by the type that the schema declares.

People write ``amount: 120.5`` in a policy test and a workflow history holds ``"amount": 120.5``; the activity itself
gets a Decimal. The declared type says what that becomes in Cedar, the same as :mod:`exequatur.policy.arguments` makes
of the decoded argument.

Rules:

V1  Whatever the value is, the conversion returns; what has no exact form of the declared type is a fault at its path.
V2  Nothing is rounded or guessed: without a declared type a whole number is a Long, another number a decimal, a string
    a String.
V3  No value can pass for a Cedar escape, other than an entity reference where the schema declares an entity.
"""

import datetime
import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from exequatur.policy.arguments import MAX_DEPTH, MAX_NODES, MAX_STRING, Conversion, Path, dotted
from exequatur.policy.entities import uid_of
from exequatur.policy.hints import RESERVED_KEYS
from exequatur.policy.scalars import SCALARS, Unrepresentable, decimal, duration, long, moment
from exequatur.policy.types import (
    BOOL,
    DATETIME,
    DECIMAL,
    DURATION,
    IPADDR,
    LONG,
    STRING,
    CedarType,
    EntityType,
    Primitive,
    RecordType,
    SetType,
    written,
)

_ENTITY = re.compile(r'([A-Za-z_]\w*(?:::[A-Za-z_]\w*)*)::("(?:\\.|[^"\\])*")', re.ASCII | re.DOTALL)
_DURATION = re.compile(r"(-?)(?=\d)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_UNITS = ("days", "hours", "minutes", "seconds", "milliseconds")


def convert_plain(value: Any, declared: CedarType | None, name: str = "args") -> Conversion:
    """Convert a plain value; never raises for any input.

    Args:
        value: None, bool, int, float, Decimal, str, datetime, list or dict with string keys, nested.
        declared: The declared type, or None where nothing is declared (V2).
        name: What sentences call the value.

    Returns:
        The value in Cedar JSON (a record where the type is one) and its faults. A member that a declared record does
        not have is left out and is a fault; so is a required one that is missing.
    """
    converter = _Converter(name)
    try:
        found = converter.convert(value, declared, (), 0)
    except Unrepresentable as fault:  # [V1]
        return Conversion({}, {(): f"{name} {fault.reason}", **converter.faults})
    except RecursionError:
        return Conversion({}, {(): f"{name} is nested too deeply"})
    return Conversion(found, converter.faults)


def entity_of(value: Any) -> tuple[str, str]:
    """Return type and id of an entity as people write it: ``Type::"id"`` or ``{"type": ..., "id": ...}``.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, str):
        match = _ENTITY.fullmatch(value.strip())
        if match is None:
            raise ValueError(f'{value[:80]!r} is no entity; write it as Type::"id"')
        try:
            return match.group(1), str(json.loads(match.group(2)))
        except ValueError:
            raise ValueError(f"{value[:80]!r} has an id that cannot be read") from None
    try:
        return uid_of(value)
    except ValueError:
        raise ValueError(f'{str(value)[:80]!r} is no entity; write it as Type::"id"') from None


class _Converter:
    def __init__(self, name: str) -> None:
        self._name = name
        self.faults: dict[Path, str] = {}
        self._nodes = 0

    def convert(self, value: Any, declared: CedarType | None, path: Path, depth: int) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:  # [V1]
            raise Unrepresentable(f"holds more than {MAX_NODES} values")
        if depth > MAX_DEPTH:  # [V1]
            raise Unrepresentable(f"is nested more than {MAX_DEPTH} levels deep")
        if isinstance(declared, RecordType):
            return self._record(value, declared, path, depth)
        if isinstance(declared, SetType):
            return self._set(value, declared.element, path, depth)
        if isinstance(declared, EntityType):
            return _entity(value, declared)
        if isinstance(declared, Primitive):
            return _PRIMITIVES[declared](value)
        return self._undeclared(value, path, depth)

    def _record(self, value: Any, declared: RecordType, path: Path, depth: int) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise Unrepresentable(f"is {_kind(value)}, but {written(declared)} is declared")
        out: dict[str, Any] = {}
        known = {each.name: each for each in declared.attributes}
        for name, item in value.items():
            here = (*path, str(name))
            if name not in known:
                close = f"; there is {', '.join(sorted(known)) or 'nothing'}"
                self._fault(here, f"is not declared in the schema{close}")
            elif item is not None:
                self._member(out, name, item, known[name].type, here, depth)
        for name, attribute in known.items():
            if attribute.required and value.get(name) is None:
                self._fault((*path, name), "is required and not given")
        return out

    def _set(self, value: Any, element: CedarType | None, path: Path, depth: int) -> list[Any]:
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
            raise Unrepresentable(f"is {_kind(value)}, but a list is declared")
        inner = _Converter(f"{self._name}[]")
        try:
            out = [inner.convert(item, element, path, depth + 1) for item in value]
        except Unrepresentable as fault:
            raise Unrepresentable(f"holds an element that {fault.reason}") from None
        if inner.faults:
            raise Unrepresentable(f"holds an element in which {next(iter(inner.faults.values()))}")
        return out

    def _undeclared(self, value: Any, path: Path, depth: int) -> Any:  # V2
        if isinstance(value, Mapping):
            out: dict[str, Any] = {}
            for name, item in value.items():
                if not isinstance(name, str) or name in RESERVED_KEYS:  # [V3]
                    raise Unrepresentable("has a key that is no string or that Cedar reserves")
                if item is not None:
                    self._member(out, name, item, None, (*path, name), depth)
            return out
        if isinstance(value, str):
            return _string(value)
        if isinstance(value, list | tuple | set | frozenset):
            return self._set(value, None, path, depth)
        scalar = SCALARS.get(type(value))
        if scalar is None:
            raise Unrepresentable(f"is {_kind(value)}, which Cedar cannot represent")
        return scalar(value)

    def _member(
        self, out: dict[str, Any], name: str, item: Any, declared: CedarType | None, path: Path, depth: int
    ) -> None:
        try:
            out[name] = self.convert(item, declared, path, depth + 1)
        except Unrepresentable as fault:
            self._fault(path, fault.reason)

    def _fault(self, path: Path, reason: str) -> None:
        self.faults[path] = f"{self._name}{dotted(path).removeprefix('args')} {reason}"


def _kind(value: Any) -> str:
    return {
        "NoneType": "nothing",
        "str": "a string",
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "list": "a list",
        "dict": "a record",
    }.get(type(value).__name__, f"a {type(value).__name__[:60]}")


def _entity(value: Any, declared: EntityType) -> dict[str, Any]:
    try:
        kind, name = entity_of(value)
    except ValueError as error:
        raise Unrepresentable(str(error)) from None
    if kind != declared.name:  # [V3]
        raise Unrepresentable(f"is a {kind}, but a {declared.name} is declared")
    return {"__entity": {"type": kind, "id": name}}


def _instead(value: Any, declared: Primitive) -> Unrepresentable:
    return Unrepresentable(f"is {_kind(value)}, but a {declared.name} is declared")


def _string(value: Any) -> str:
    if not isinstance(value, str):  # [V2]
        raise _instead(value, STRING)
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise Unrepresentable("is a string that is not valid Unicode (a lone surrogate)") from None
    if size > MAX_STRING:
        raise Unrepresentable(f"is a string of more than {MAX_STRING} bytes")
    return str.__str__(value)


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _instead(value, BOOL)
    return value


def _long(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):  # [V2]
        raise _instead(value, LONG)
    return long(int(value))


def _decimal(value: Any) -> dict[str, Any]:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise _instead(value, DECIMAL)
    try:
        return decimal(Decimal(repr(value)) if isinstance(value, float) else Decimal(value))
    except InvalidOperation:
        raise Unrepresentable("is a string that is no number, but a decimal is declared") from None


def _datetime(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(value)
        except ValueError:
            raise Unrepresentable("is no point in time; write it as 2026-01-31T12:00:00Z") from None
    if not isinstance(value, datetime.datetime):
        raise _instead(value, DATETIME)
    return moment(value)


def _duration(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is None:
            raise Unrepresentable("is no duration; write it as 1h30m, 90s or 250ms")
        sign, *numbers = match.groups()
        parts = {unit: int(number) for unit, number in zip(_UNITS, numbers, strict=True) if number}
        try:
            value = datetime.timedelta(**parts) * (-1 if sign else 1)
        except OverflowError:
            raise Unrepresentable("is a duration that is too long") from None
    if isinstance(value, int | float) and not isinstance(value, bool):
        # What the SDK's JSON makes of a timedelta.
        try:
            value = datetime.timedelta(seconds=value)
        except (OverflowError, ValueError):
            raise Unrepresentable("is a duration that is too long") from None
    if not isinstance(value, datetime.timedelta):
        raise _instead(value, DURATION)
    return duration(value)


def _ipaddr(value: Any) -> Any:
    try:
        network = ipaddress.ip_network(value) if "/" in str(value) else ipaddress.ip_address(value)
    except ValueError:
        raise Unrepresentable("is no IP address or network") from None
    return SCALARS[type(network)](network)


_PRIMITIVES: dict[Primitive, Callable[[Any], Any]] = {
    BOOL: _bool,
    LONG: _long,
    STRING: _string,
    DECIMAL: _decimal,
    DATETIME: _datetime,
    DURATION: _duration,
    IPADDR: _ipaddr,
}
