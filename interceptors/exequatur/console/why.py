"""Why the gate answered as it did to one attempt: the recorded question, asked again of the archived policies.

It is what ``exequatur policy explain`` says, as plain data. Nothing is verified here; the audit does that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from exequatur.audit.decided import Decided, Wanted, as_recorded, asked_of, of_history, of_record, own_question_of
from exequatur.audit.evidence import DecisionRecord, EvidenceReader
from exequatur.audit.history import RunHistory
from exequatur.authoring.explain.explain import ExplainedPolicy, explain
from exequatur.authoring.expression import literal, written
from exequatur.errors import EvidenceError, ExequaturError, PolicyError
from exequatur.lineage.record import Record
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.source import BundleSource
from exequatur.statements.encoding import strict_json

MOST_NEAR = 10
"""Policies that nearly decided which are shown."""
LONGEST = 400
"""Characters of one value that is shown."""
_OWN = {
    "workflow.reset": "The workflow had been reset, and it was the reset that was denied.",
    "workflow.child": "Another workflow had started this one, and it was that which was denied (workflow.child).",
    "activity.reset": "The activity had been reset, and it was the reset that was denied.",
}
_MARKS = {"met": "yes", "unmet": "no", "error": "error", "unreached": "not looked at"}


def from_evidence(reader: EvidenceReader, wanted: Wanted, in_force: PolicyBundle | None) -> dict[str, Any] | None:
    """Explain a decision that a journal holds; ``None`` where none does.

    Args:
        reader: The evidence.
        wanted: Which decision; it names the run.
        in_force: The policies of the console, for what they decided themselves.

    Raises:
        EvidenceError: It cannot be read, or what it asked is not recorded.
    """
    every = list(_decisions(reader, wanted))
    found = [each for each in every if wanted.attempt in (None, each[1].attempt)]
    if not found:
        return None
    record, claims = max(found, key=lambda each: (each[1].attempt, each[0].at, each[0].index))
    bundle = _bundle(reader, claims.bundle, in_force)
    told = _explained(of_record(record, claims, bundle, None), bundle)
    told["attempts"] = sorted({each.attempt for _, each in every})
    return told


def from_history(
    history: RunHistory, wanted: Wanted, namespace: str, reader: EvidenceReader, in_force: PolicyBundle | None
) -> dict[str, Any]:
    """Explain a decision of which only the history tells.

    Raises:
        EvidenceError: The history does not have it, or its question cannot be made again.
    """
    decided = of_history(history, wanted, namespace=namespace)
    bundle = in_force if decided.bundle is None else _bundle(reader, decided.bundle, in_force)
    return _explained(decided, bundle) | {"attempts": [decided.attempt] if decided.attempt else []}


def _decisions(reader: EvidenceReader, wanted: Wanted) -> Iterable[tuple[Record, DecisionRecord]]:
    for record, sound in reader.records_of(wanted.workflow_id, frozenset({wanted.run_id or ""})):
        if record.kind != "decision" or not sound:
            continue
        try:
            said = strict_json(record.body)
            if not isinstance(said, dict) or said.get("activity_id") != wanted.activity_id:
                continue
            claims = DecisionRecord.model_validate_json(record.body)
        except (ValidationError, ValueError):
            continue
        if claims.workflow_id == wanted.workflow_id:
            yield record, claims


def _bundle(reader: EvidenceReader, address: str, in_force: PolicyBundle | None) -> PolicyBundle | None:
    if in_force is not None and in_force.digest == address:
        return in_force
    data = reader.bundle(address)
    try:
        return None if data is None else PolicyBundle(BundleSource.from_archive(data))
    except PolicyError as error:
        raise EvidenceError(f"The archived policies cannot be read: {error}") from None


def _explained(decided: Decided, bundle: PolicyBundle | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        "place": decided.place,
        "decided_at": decided.at,
        "activity_id": decided.activity_id,
        "activity_type": decided.activity_type,
        "attempt": decided.attempt,
        "decision": decided.decision,
        "enforced": decided.enforced,
        "reason": decided.reason,
        "policies": list(decided.policies or ()),
        "bundle": decided.bundle,
        "question": decided.question,
        "facts": _facts(decided),
        "notes": list(decided.notes),
        "explanation": None,
    }
    if decided.unasked is not None:
        told["notes"].append(f"{decided.unasked.removesuffix('.')}, before the policies were asked.")
        return told
    if bundle is None:
        told["notes"].append(
            f"The policies {decided.bundle} that decided are not archived in the console's evidence. Name what holds "
            "them with --evidence."
        )
        return told
    try:
        _answer(told, decided, bundle)
    except ExequaturError as error:
        told["notes"].append(str(error))
    return told


def _answer(told: dict[str, Any], decided: Decided, bundle: PolicyBundle) -> None:
    asked = asked_of(decided, bundle)
    if bundle.digest == decided.bundle and (own := own_question_of(decided, asked, bundle)) is not None:
        asked = own
        told["notes"].append(_OWN.get(own.action, f"It was {own.action} that was denied."))
    found = explain(bundle, asked)
    if not as_recorded(decided, found.verdict):
        told["notes"].append("The policies answer otherwise than is recorded; the audit tells why that can be.")
    told["explanation"] = {
        "allowed": found.verdict.allowed,
        "who": found.principal,
        "action": found.action,
        "on": found.resource,
        "errors": list(found.verdict.errors),
        "determining": [_policy(each) for each in found.determining],
        "overruled": [_policy(each) for each in found.overruled],
        "near": [_policy(each) for each in found.near[:MOST_NEAR]],
        "more_near": max(0, len(found.near) - MOST_NEAR),
        "failed": [_policy(each) for each in found.failed],
        "missing": [{"kind": each.kind, "sentence": each.sentence, "policy": each.policy} for each in found.missing],
    }


def _policy(policy: ExplainedPolicy) -> dict[str, Any]:
    return {
        "policy": policy.id,
        "effect": policy.effect,
        "where": policy.place,
        "cedar": policy.text,
        "says": policy.reason,
        "approval": policy.approval,
        "parts": [
            {
                "outcome": part.outcome,
                "mark": _MARKS[part.outcome],
                "clause": part.origin if part.origin in ("when", "unless") else "",
                "cedar": part.text,
                "problem": part.error,
                "values": [{"path": each.path, "value": each.value} for each in part.values],
            }
            for part in policy.parts
        ],
    }


def _facts(decided: Decided) -> list[dict[str, str]]:
    """What the policies were told, by its name in them."""
    principal = decided.principal
    uid = principal.get("uid", {})
    rows = [("principal", f"{uid.get('type')}::{_text(uid.get('id'))}")]
    rows += [(f"principal.{name}", _text(value)) for name, value in (principal.get("attrs") or {}).items()]
    parents = [f"{each.get('type')}::{_text(each.get('id'))}" for each in principal.get("parents") or ()]
    rows += [("principal in", ", ".join(parents))] if parents else []
    if decided.resource is not None:
        rows.append(("resource", f"{decided.resource['type']}::{_text(decided.resource['id'])}"))
    given = getattr(decided.arguments, "value", None)
    rows += [(f"context.args.{name}", _text(value)) for name, value in given.items()] if isinstance(given, dict) else []
    rows += [(f"context.{name}", _text(value)) for name, value in decided.facts.items()]
    return [{"path": path, "value": value if len(value) <= LONGEST else f"{value[:LONGEST]}…"} for path, value in rows]


def _text(value: Any) -> str:
    try:
        return written(literal(value))
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError):
        return str(value)
