"""What came of a scene of the demo."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What happened, and whether it is what should."""

    happened: str
    ok: bool
