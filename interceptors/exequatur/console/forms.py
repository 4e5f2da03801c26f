"""What a form says.

Rules, numbered as the code marks them:

F1  A form is URL-encoded UTF-8, with few fields of bounded length. A field that comes twice counts as not there, so
    that nobody reads another value than the one that is acted on.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request

from exequatur.console.errors import ProblemError

LONGEST = 4000
"""Characters of one field."""
_FIELDS = 50
_TYPE = "application/x-www-form-urlencoded"


async def form_of(request: Request) -> Mapping[str, str]:
    """The fields of a form that are there once, without spaces around them.

    Raises:
        ProblemError: F1.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _TYPE:  # [F1]
        raise _unread(f"Its type is not {_TYPE}.")
    try:
        pairs = parse_qsl(
            (await request.body()).decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_FIELDS
        )
    except ValueError:
        raise _unread("It has too many fields, or is not UTF-8.") from None
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    if any(len(value) > LONGEST for values in fields.values() for value in values):  # [F1]
        raise _unread(f"A field has more than {LONGEST} characters.")
    return {name: values[0].strip() for name, values in fields.items() if len(values) == 1}  # F1


def _unread(why: str) -> ProblemError:
    return ProblemError(400, "The form cannot be read", f"{why} Nothing was done.", "Reload the page and try again.")
