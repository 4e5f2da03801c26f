"""Explanations and answers about access, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from exequatur.audit.wording import count, shown

if TYPE_CHECKING:  # at run time when a command runs, so that --help is quick
    from exequatur.audit.decided import Decided
    from exequatur.authoring.explain.access import Access, Answer
    from exequatur.authoring.explain.explain import ExplainedPolicy, Explanation

SHOWN_NEAR = 3
"""Policies that nearly decided, in the text; the others are counted, and JSON has all."""
_MARKS = {"met": ("yes", "green"), "unmet": ("no", "red"), "error": ("failed", "red"), "unreached": ("-", None)}
_ANSWERS = {"yes": ("yes", "green"), "no": ("no", "red"), "conditional": ("it depends", "yellow")}


def print_explanation(
    explained: Explanation | None, decided: Decided | None, notes: tuple[str, ...], *, everything: bool
) -> None:
    """Print for people.

    Args:
        explained: The explanation; None if the policies were not asked.
        decided: The recorded decision.
        notes: What limits the explanation.
        everything: Show every policy that nearly decided.
    """
    for line in _explanation(explained, decided, notes, everything):
        click.echo(line)


def print_access(access: Access, title: str) -> None:
    """Print for people."""
    click.echo(click.style(shown(title), bold=True))
    for answer in access.answers:
        for line in _answer(answer):
            click.echo(line)
    click.echo()
    if access.reads and any(not each.final and each.answer != "no" for each in access.answers):
        reads = ", ".join(map(shown, access.reads))
        click.echo(f"The gate says no wherever a value that policies read is missing or has no form in Cedar: {reads}.")
    if any(each.final for each in access.answers):
        click.echo("(gate): everything that policies read was given, so this is the gate's own answer.")
    for note in access.notes:
        click.echo(shown(note))


def explanation_document(
    explained: Explanation | None, decided: Decided | None, notes: tuple[str, ...]
) -> dict[str, Any]:
    """The same as JSON: members are never left out, and null where nothing is known."""
    return {
        "decided": None if decided is None else _decided(decided),
        "explanation": None
        if explained is None
        else {
            "decision": "allow" if explained.verdict.allowed else "deny",
            "principal": explained.principal,
            "action": explained.action,
            "resource": explained.resource,
            "bundle": explained.bundle,
            "errors": list(explained.verdict.errors),
            "determining": [_policy(each) for each in explained.determining],
            "overruled": [_policy(each) for each in explained.overruled],
            "near": [_policy(each) for each in explained.near],
            "failed": [_policy(each) for each in explained.failed],
            "missing": [
                {"kind": each.kind, "sentence": each.sentence, "policy": each.policy} for each in explained.missing
            ],
        },
        "notes": list(notes),
    }


def access_document(access: Access) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "asked": access.asked,
        "bundle": access.bundle,
        "answers": [
            {
                "subject": each.subject,
                "about": each.about,
                "types": list(each.types),
                "answer": each.answer,
                "final": each.final,
                "policies": [
                    {"id": policy.id, "effect": policy.effect, "place": policy.place} for policy in each.policies
                ],
                "conditions": [
                    {
                        "policy": one.policy.id,
                        "effect": one.policy.effect,
                        "place": one.policy.place,
                        "all_of": list(one.texts),
                        "approval": one.approval,
                    }
                    for one in each.conditions
                ],
                "errors": list(each.errors),
            }
            for each in access.answers
        ],
        "reads": list(access.reads),
        "notes": list(access.notes),
    }


def _explanation(
    explained: Explanation | None, decided: Decided | None, notes: tuple[str, ...], everything: bool
) -> Iterator[str]:
    if decided is not None:
        yield from _decision(decided)
    if explained is not None:
        allowed = explained.verdict.allowed
        word = click.style("ALLOWED" if allowed else "DENIED", fg="green" if allowed else "red", bold=True)
        may = "may" if allowed else "may not"
        yield shown(f"{explained.principal} {may} run {explained.action} on {explained.resource}").join(
            (f"{word}  ", "")
        )
        yield f"policies {explained.bundle}"
        for error in explained.verdict.errors:
            yield f"  {click.style('error', fg='red')} {shown(error)}"
        yield from _policies("Decided by", explained.determining, parts=False)
        if not explained.determining and not explained.verdict.errors:
            yield "\nNo policy permits it."
        yield from _policies("Cedar could not evaluate, so the gate denies", explained.failed, parts=True)
        yield from _policies("Would permit it, and does not count", explained.overruled, parts=False)
        near = explained.near if everything else explained.near[:SHOWN_NEAR]
        nearly = "Would have forbidden it" if allowed else "Would have permitted it"
        yield from _policies(f"{nearly}, but for what is marked no", near, parts=True)
        left = len(explained.near) - len(near)
        if left:
            yield f"\n({count(left, 'policy', 'policies')} more with --all)"
        if explained.missing:
            yield f"\n{click.style('Missing for an allow', bold=True)}"
            for each in explained.missing:
                asks = f" [{shown(each.policy)}]" if each.policy is not None else ""
                yield f"  {each.kind}: {shown(each.sentence)}{asks}"
    if notes:
        yield ""
    for note in notes:
        yield f"note: {shown(note)}"


def _decision(decided: Decided) -> Iterator[str]:
    from exequatur.audit.decided import title_of

    yield click.style(shown(title_of(decided)), bold=True)
    if decided.decision is None:
        return
    words = {"allow": "allowed", "deny": "denied", "none": "rejected before the policies were asked"}
    enforced = "" if decided.enforced is not False or decided.decision == "allow" else ", not enforced"
    names = f", by {', '.join(map(shown, decided.policies))}" if decided.policies else ""
    yield f"recorded: {words[decided.decision]}{enforced}{names}"
    if decided.reason is not None:
        yield f"  {shown(decided.reason)}"
    yield ""


def _policies(title: str, policies: tuple[ExplainedPolicy, ...], *, parts: bool) -> Iterator[str]:
    if policies:
        yield f"\n{click.style(title, bold=True)}"
    for policy in policies:
        yield f"  {click.style(shown(policy.id), bold=True)} ({policy.effect}) {shown(policy.place)}"
        if policy.reason is not None:
            yield f"    {shown(policy.reason)}"
        if not parts:
            yield from (f"    | {shown(line)}" for line in policy.text.splitlines())
            continue
        for part in policy.parts:
            mark, colour = _MARKS[part.outcome]
            clause = f"{part.origin} " if part.origin in ("when", "unless") else ""
            yield f"    {click.style(mark.ljust(6), fg=colour)} {clause}{shown(part.text)}"
            if part.error is not None:
                yield f"             {shown(part.error)}"
            for read in part.values:
                yield f"             {shown(read.path)} is {shown(read.value)}"


def _answer(answer: Answer) -> Iterator[str]:
    word, colour = _ANSWERS[answer.answer]
    types = f" ({', '.join(map(shown, answer.types))})" if answer.types else ""
    final = " (gate)" if answer.final else ""
    by = ", ".join(shown(policy.id) for policy in answer.policies)
    reason = f": {by}" if by else ": no policy permits it" if answer.answer == "no" and not answer.errors else ""
    yield f"  {click.style(word.ljust(10), fg=colour)} {shown(answer.subject)}{types}{reason}{final}"
    for error in answer.errors:
        yield f"             {shown(error)}"
    permits = [each for each in answer.conditions if each.policy.effect == "permit"]
    for number, each in enumerate(permits):
        yield f"             {'or if' if number else 'if'} {_joined(each.texts)}  [{shown(each.policy.id)}]"
        if each.approval is not None:
            yield f"                 with an approval: {shown(each.approval)}"
    for each in answer.conditions:
        if each.policy.effect == "forbid":
            yield f"             unless {_joined(each.texts)}  [{shown(each.policy.id)}]"


def _joined(texts: tuple[str, ...]) -> str:
    return " && ".join(f"({shown(each)})" if "||" in each or each.startswith("if ") else shown(each) for each in texts)


def _policy(policy: ExplainedPolicy) -> dict[str, Any]:
    return {
        "id": policy.id,
        "effect": policy.effect,
        "place": policy.place,
        "reason": policy.reason,
        "approval": policy.approval,
        "text": policy.text,
        "parts": [
            {
                "clause": part.origin,
                "text": part.text,
                "outcome": part.outcome,
                "error": part.error,
                "values": {read.path: read.value for read in part.values},
            }
            for part in policy.parts
        ],
    }


def _decided(decided: Decided) -> dict[str, Any]:
    try:
        at = datetime.fromtimestamp(decided.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        at = None
    return {
        "place": decided.place,
        "at": at,
        "workflow_id": decided.workflow_id,
        "run_id": decided.run_id,
        "activity_id": decided.activity_id,
        "activity_type": decided.activity_type,
        "attempt": decided.attempt,
        "decision": decided.decision,
        "enforced": decided.enforced,
        "reason": decided.reason,
        "policies": None if decided.policies is None else list(decided.policies),
        "bundle": decided.bundle,
    }
