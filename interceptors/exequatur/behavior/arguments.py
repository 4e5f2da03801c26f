"""The features of an activity's arguments: which fields there are, of which kind, and what can be compared of them.

They are taken from the JSON that Temporal records, without type hints, so that a baseline can be learned, and a
decision checked, by whoever has the history and not the code. What is not JSON, too long or too deep is one opaque
field.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic_core import from_json

from exequatur.statements.encoding import compact_json, digest

Kind = Literal["text", "number", "flag", "empty", "list", "record", "opaque"]

MAX_BYTES = 256 * 1024
"""Of one argument that is looked into; reading it takes some milliseconds."""
MAX_FIELDS = 300
MAX_DEPTH = 8
LARGEST = sys.float_info.max
"""JSON has no infinity."""
MAX_PATH = 200
"""Characters of a path."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the arguments.

    Args:
        path: The argument's number from 1 and the names below it: ``1.order.amount``; ``[]`` are the items of a list.
        kind: Of its value.
        value: A number, or a short digest of a text or flag; ``None`` where nothing is compared.
    """

    path: str
    kind: Kind
    value: float | str | None = None


@dataclass(frozen=True)
class Features:
    """All fields, in their order."""

    fields: tuple[Field, ...]

    @cached_property
    def shape(self) -> str:
        """A digest of which fields there are and of which kind."""
        return digest(compact_json(sorted({(field.path, field.kind) for field in self.fields})))[:22]


def features_of(arguments: Sequence[tuple[bytes, bytes]]) -> Features:
    """Take the features of arguments.

    Args:
        arguments: The encoding that each payload names, and its data as user code encoded it.
    """
    fields: list[Field] = []
    for number, (encoding, data) in enumerate(arguments[:MAX_FIELDS], start=1):
        for field in _fields(str(number), encoding, data):
            if len(fields) >= MAX_FIELDS:
                return Features((*fields, Field("more", "opaque")))
            fields.append(field)
    return Features(tuple(fields))


def _fields(path: str, encoding: bytes, data: bytes) -> Iterator[Field]:
    if encoding == b"binary/null":
        return iter((Field(path, "empty"),))
    if not encoding.startswith(b"json/") or len(data) > MAX_BYTES:
        return iter((Field(path, "opaque"),))
    try:
        # Strings of the document need not be UTF-8; and NaN is what some encoders write.
        value = from_json(data, allow_inf_nan=True)
    except ValueError:
        return iter((Field(path, "opaque"),))
    return _walk(path, value, MAX_DEPTH)


def _walk(path: str, value: Any, depth: int) -> Iterator[Field]:
    path = path[:MAX_PATH]
    if isinstance(value, dict):
        yield Field(path, "record")
        if depth:
            for name in sorted(value):
                yield from _walk(f"{path}.{name}", value[name], depth - 1)
    elif isinstance(value, list):
        yield Field(path, "list", float(len(value)))
        if depth:
            for item in value[:MAX_FIELDS]:
                yield from _walk(f"{path}[]", item, depth - 1)
    elif value is None:
        yield Field(path, "empty")
    elif isinstance(value, bool):
        yield Field(path, "flag", _short(str(value)))
    elif isinstance(value, int | float):
        yield Field(path, "number", _number(value))
    else:
        yield Field(path, "text", _short(str(value)))


def _number(value: float) -> float | None:
    try:
        number = float(value)
    except OverflowError:  # an integer beyond all floats
        return LARGEST if value > 0 else -LARGEST
    return None if math.isnan(number) else max(-LARGEST, min(LARGEST, number))


def _short(text: str) -> str:
    """Values are compared by it, so that a baseline shows nobody's data."""
    return digest(text.encode(errors="surrogatepass"))[:16]
