"""What the doctor says about one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report.

    Args:
        check: What was looked at, by a name that does not change.
        level: ``problem`` is what stops work or lets something go unnoticed; ``warning`` is what soon will, or what
            could not be found out.
        text: What was found.
        step: What to do next; ``None`` for what is fine.
    """

    check: str
    level: Level
    text: str
    step: str | None = None


def fine(check: str, text: str) -> Finding:
    return Finding(check, "ok", text)


def warning(check: str, text: str, step: str) -> Finding:
    return Finding(check, "warning", text, step)


def problem(check: str, text: str, step: str) -> Finding:
    return Finding(check, "problem", text, step)
