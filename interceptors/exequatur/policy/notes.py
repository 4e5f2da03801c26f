"""What declarations say that Cedar's types cannot: bounds, choices and descriptions, as text for ``@doc``."""

import datetime
import inspect
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

#: A note stands on one line of the schema.
MAX_NOTE = 200
_MAX_CHOICES = 20
_BOUNDS = frozenset({int, float, str, Decimal, datetime.datetime, datetime.timedelta})

_WORDED: Final = (
    ("ge", "at least {}"),
    ("gt", "more than {}"),
    ("le", "at most {}"),
    ("lt", "less than {}"),
    ("multiple_of", "a multiple of {}"),
    ("decimal_places", "at most {} decimal places"),
    ("pattern", "matching {}"),
    ("min_length", "length at least {}"),
    ("max_length", "length at most {}"),
)


def noted(notes: Iterable[str]) -> str:
    """Return notes as one line of bounded length."""
    text = ", ".join(dict.fromkeys(filter(None, (" ".join(note.split()) for note in notes))))
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= MAX_NOTE else f"{text[: MAX_NOTE - 1]}…"


def constraints(metadata: Iterable[Any]) -> tuple[str, ...]:
    """Return what ``Annotated`` metadata or a Pydantic field says about values.

    Args:
        metadata: Objects of ``annotated_types``, of Pydantic, or anything else, which says nothing.

    Returns:
        A description, if there is one, and the constraints in words.
    """
    found: list[str] = []
    for item in metadata:
        # Pydantic's description, and ``doc`` of dataclass fields from Python 3.14 on.
        description = getattr(item, "description", None) or getattr(item, "doc", None)
        if isinstance(description, str):
            found.append(description)
        for name, words in _WORDED:
            value = getattr(item, name, None)
            value = getattr(value, "pattern", value)
            if type(value) in _BOUNDS and (name != "min_length" or value):
                found.append(words.format(value))
        inner = getattr(item, "metadata", None)
        if isinstance(inner, list):
            found += constraints(inner)
    return tuple(dict.fromkeys(found))


def choices(values: Iterable[Any]) -> tuple[str, ...]:
    """Return what an enumeration allows."""
    texts = [str(value)[:80] for value in values]
    more = ["…"] if len(texts) > _MAX_CHOICES else []
    return (f"one of {', '.join(texts[:_MAX_CHOICES] + more)}",)


def summary_of(documented: Any) -> str:
    """Return the first line of a docstring of its own, not of one that Python made up or that a base class has."""
    routine = inspect.isroutine(documented)
    written = documented.__doc__ if routine else getattr(documented, "__dict__", {}).get("__doc__")
    name = getattr(documented, "__name__", "")
    if not isinstance(written, str) or written.startswith(f"{name}("):
        return ""
    lines = inspect.cleandoc(written).splitlines()
    return lines[0].strip() if lines else ""
