"""What people are asked, as text and as JSON. All of it is somebody else's words: text is escaped and cut."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from exequatur.approvals import Listing, OpenChallenge
from exequatur.audit.wording import count, moment, readable, shown, span
from exequatur.policy.approval import Approval as Wanted
from exequatur.statements.models import Approval, Needed

SHORT = 12
"""Characters of an id that a list shows."""
_CUT = 200
"""Characters of the arguments that a list shows."""
_INDENT = " " * (SHORT + 2)


def listed(listing: Listing, now: float) -> Iterator[str]:
    """The lines of a list.

    Args:
        listing: What was found.
        now: Seconds since 1970.
    """
    for each in listing.challenges:
        claims = each.claims
        yield (
            f"{each.id[:SHORT]}  {shown(claims.activity_type)} for {shown(claims.sub)}, "
            f"workflow {shown(claims.workflow_id)}"
        )
        yield f"{_INDENT}asked: {progress(each, now)}; ends in {span(claims.exp - now)}"
        yield f"{_INDENT}why: {_why(each)}"
        if claims.arguments is not None:
            yield f"{_INDENT}arguments: {shown(readable(claims.arguments), _CUT)}"
    if not listing.challenges:
        yield "Nobody is asked for anything."


def shortcomings(listing: Listing) -> Iterator[str]:
    """What a list leaves out, a line each."""
    for sentence in listing.refused:
        yield f"not shown: {shown(sentence)}"
    if not listing.complete:
        yield "not all running workflows were looked at; narrow them with --query or --workflow-id"


def told(each: OpenChallenge, now: float) -> Iterator[str]:
    """The lines about one challenge.

    Args:
        each: The challenge.
        now: Seconds since 1970.
    """
    claims = each.claims
    yield _line("id", each.id)
    yield _line("activity", shown(claims.activity_type))
    arguments = "not told, because they are too long; see the workflow's history"
    if claims.arguments is not None:
        arguments = shown(readable(claims.arguments), 2 * len(claims.arguments))
    yield _line("arguments", arguments)
    yield _line("on behalf of", shown(claims.sub))
    yield _line(
        "workflow", f"{shown(claims.workflow_id)} ({shown(claims.workflow_type)}), namespace {shown(claims.namespace)}"
    )
    yield _line("run", shown(each.run_id))
    yield _line("why", _why(each))
    for need in claims.needs:
        agreed = ", ".join(map(shown, each.agreed(need.group, now))) or "nobody yet"
        yield _line("asked", f"{_wanted(need)}; agreed: {agreed}")
    for answer in each.answers:
        yield _line("answer", _answer(answer))
    if not each.complete:
        yield _line("answer", "older ones were not looked for, because the history is too long")
    yield _line("ends", f"{moment(claims.exp)} UTC, in {span(claims.exp - now)}")
    yield _line("policies", f"{', '.join(map(shown, claims.policies))} of bundle {claims.bundle}")


def progress(each: OpenChallenge, now: float) -> str:
    """Who is asked and how many have agreed."""
    return ", ".join(
        f"{shown(need.group)} {len(each.agreed(need.group, now))} of {need.quorum}" for need in each.claims.needs
    )


def listing_document(listing: Listing, now: float) -> dict[str, Any]:
    """A list for machines."""
    return {
        "challenges": [document(each, now) for each in listing.challenges],
        "refused": list(listing.refused),
        "complete": listing.complete,
    }


def document(each: OpenChallenge, now: float) -> dict[str, Any]:
    """A challenge for machines."""
    claims = each.claims
    return {
        "id": each.id,
        "activity": claims.activity_type,
        "arguments": claims.arguments,
        "arguments_digest": claims.args,
        "on_behalf_of": claims.sub,
        "namespace": claims.namespace,
        "workflow_id": claims.workflow_id,
        "workflow_type": claims.workflow_type,
        "run_id": each.run_id,
        "reason": claims.reason,
        "policies": list(claims.policies),
        "bundle": claims.bundle,
        "asked": [
            {
                "group": need.group,
                "quorum": need.quorum,
                "counts_for_seconds": need.ttl,
                "agreed": list(each.agreed(need.group, now)),
            }
            for need in claims.needs
        ],
        "answers": [
            {
                "id": answer.jti,
                "by": answer.sub,
                "verdict": answer.verdict,
                "groups": list(answer.groups),
                "reason": answer.reason,
                "at": _iso(answer.iat),
                "until": _iso(answer.exp),
            }
            for answer in each.answers
        ],
        "answers_complete": each.complete,
        "issued": _iso(claims.iat),
        "ends": _iso(claims.exp),
    }


def _why(each: OpenChallenge) -> str:
    return shown(each.claims.reason or f"forbidden by {', '.join(each.claims.policies) or 'a policy'}")


def _wanted(need: Needed) -> str:
    people = "1 person" if need.quorum == 1 else count(need.quorum, "person", "people")
    try:
        return str(Wanted(shown(need.group), need.quorum, timedelta(seconds=need.ttl)))
    except (OverflowError, ValueError):  # a time that no policy can ask for
        return f"{people} of {shown(need.group)}"


def _answer(answer: Approval) -> str:
    verb = "approved" if answer.verdict == "approve" else "rejected"
    said = f": {shown(answer.reason)}" if answer.reason else ""
    groups = ", ".join(map(shown, answer.groups))
    return f"{shown(answer.sub)} of {groups} {verb} at {moment(answer.iat)} UTC, until {moment(answer.exp)} UTC{said}"


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _line(name: str, text: str) -> str:
    return f"{name:<13} {text}"
