"""Do the arguments that a journal says Cedar was given stand in the input that the history records?

How an argument becomes a value of Cedar depends on the activity's type hints, which an auditor need not have. So values
are compared without their places: one that stands nowhere in the input may be a default of the code, or a lie.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from temporalio.api.common.v1 import Payload


def stand_in(arguments: Mapping[str, Any], input: Iterable[Payload]) -> bool:
    """Whether every value of the recorded arguments stands in the recorded input.

    Args:
        arguments: As Cedar JSON.
        input: The activity's payloads, as user code wrote them.
    """
    wanted = set(_values(arguments))
    if not wanted:
        return True
    found: set[str] = set()
    for payload in input:
        try:
            found.update(_values(json.loads(payload.data)))
        except (ValueError, RecursionError):
            continue  # not JSON: nothing in it can be found
    return wanted <= found


def _values(value: Any) -> Iterator[str]:
    """The values in a JSON document, each in one spelling."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            extension = node.get("__extn")
            waiting.extend([extension.get("arg")] if isinstance(extension, dict) else node.values())
        elif isinstance(node, list):
            waiting.extend(node)
        elif node is not None:
            yield _spelling(node)


def _spelling(value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return f"bool {value}"
    text = str(value)
    try:
        number = Decimal(text)
        return f"number {number.normalize()}" if number.is_finite() else f"text {text}"
    except InvalidOperation:
        pass
    try:
        return f"moment {datetime.fromisoformat(text).timestamp()}"
    except (ValueError, OverflowError):
        return f"text {text}"
