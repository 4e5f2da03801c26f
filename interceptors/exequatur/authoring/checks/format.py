"""Policies in Cedar's own format, without a change to what they say.

Rules:

F1  The formatted text holds the same policies in the same order, or it is refused.
F2  Every comment is still there, or it is refused.
F3  Formatting a formatted text changes nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import cedarpy

from exequatur.authoring.checks.findings import Finding, finding
from exequatur.authoring.checks.reading import read_policies, unsplit
from exequatur.authoring.checks.texts import Text, WrittenPolicy, written_policies

LINE_WIDTH = 100
INDENT = 2
#: Cedar's formatter needs a second pass for some comments.
_PASSES = 3


@dataclass(frozen=True, slots=True)
class Formatted:
    """A formatted text, or why there is none.

    Args:
        text: The text; None if the given one was left alone.
        findings: What is wrong with it then.
    """

    text: str | None
    findings: tuple[Finding, ...] = ()


def format_text(name: str, text: str, line_width: int = LINE_WIDTH) -> Formatted:
    """Format policies.

    Every policy is given to Cedar's formatter by itself: on whole files it takes quadratic time, and drops the blank
    line between a comment at the head of the file and the first policy.

    Args:
        name: What findings call the text.
        text: The policies.
        line_width: What a line should not exceed, in characters.
    """
    file = Text(name, text)
    policies, _ = written_policies(file)
    findings = read_policies(policies)[1]
    if not findings:
        findings = list(unsplit(file, policies))
    if findings:
        return Formatted(None, tuple(findings))
    try:
        formatted = _joined(file, policies, line_width)
    except ValueError as error:
        return _refused(file, f"Cedar cannot format this file: {error}")
    if _meaning(formatted) != _meaning(text):  # [F1]
        return _refused(file, "Cedar's formatter would change what a policy says")
    if _comments(Text(name, formatted)) != _comments(file):  # [F2]
        return _refused(file, "Cedar's formatter would lose a comment")
    return Formatted(formatted)


def _joined(file: Text, policies: Sequence[WrittenPolicy], line_width: int) -> str:
    pieces: list[str] = []
    end = 0
    for policy in policies:
        gap = file.text[end : policy.start]
        above = _paragraphs(gap)
        end = _last_line_end(file, policy)
        body = _stable(file.text[policy.start : end].strip(), line_width)
        apart = "\n\n" if _ends_blank(gap) else "\n"
        pieces.append(f"{above}{apart}{body}" if above else body)
    rest = _paragraphs(file.text[end:])
    return "\n\n".join([*pieces, rest] if rest else pieces) + "\n" if pieces or rest else ""


def _stable(policy: str, line_width: int) -> str:
    for _ in range(_PASSES):
        before, policy = policy, cedarpy.format_policies(policy, line_width, INDENT).strip()
        if before == policy:  # [F3]
            return policy
    raise ValueError("its formatter does not come to an end")


def _last_line_end(file: Text, policy: WrittenPolicy) -> int:
    """The end of the policy, a comment behind it on its last line included."""
    behind = [each for each in policy.comments if each.start >= policy.end]
    return behind[-1].start + len(behind[-1].text) if behind else policy.end


def _paragraphs(comments: str) -> str:
    """Comments without indentation, paragraphs one blank line apart."""
    lines = [line.strip() for line in comments.strip().splitlines()]
    kept = [line for index, line in enumerate(lines) if line or lines[index - 1]]
    return "\n".join(kept)


def _ends_blank(gap: str) -> bool:
    return gap.rstrip(" \t").replace("\r", "").endswith("\n\n")


def _meaning(text: str) -> object:
    return json.loads(cedarpy.policies_to_json_str(text))


def _comments(file: Text) -> list[str]:
    """The comments in order; between words there is nothing else than white space and comments."""
    found: list[str] = []
    end = 0
    for word in file.words:
        if word.start > end:
            found += [line.strip() for line in file.text[end : word.start].splitlines() if line.strip()]
        end = word.end
    return found + [line.strip() for line in file.text[end:].splitlines() if line.strip()]


def _refused(file: Text, message: str) -> Formatted:
    return Formatted(None, (finding("syntax", file, 0, 0, message, "format it by hand"),))
