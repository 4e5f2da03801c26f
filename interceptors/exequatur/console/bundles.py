"""The policies in force on each worker, how often each decided, and where candidates disagree."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from exequatur.audit.decided import archived
from exequatur.console.decision import Decision
from exequatur.console.entering import entered
from exequatur.console.parts import Console, console_of
from exequatur.console.render import page
from exequatur.errors import EvidenceError, PolicyError
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.parsing import locations
from exequatur.release.report import InForceReport, read_reports

router = APIRouter()

_KEPT = 16
"""Bundles that stay in memory."""
_DISAGREEMENTS = 100
_kept: dict[str, PolicyBundle] = {}


@router.get("/governance/policies")
async def show(request: Request) -> Response:
    """The page."""
    await entered(request, "governance")
    console = console_of(request)
    reports, problems = await asyncio.to_thread(_reports, console)
    counts = console.decisions.counts()
    decided: dict[str, Counter[str]] = {}
    for (digest, policy), times in counts.policies.items():
        decided.setdefault(digest, Counter())[policy] += times
    own = console.governing.gate.policy
    digests = list(dict.fromkeys([own.bundle.digest, *(each.digest for each in reports), *sorted(decided)]))[:_KEPT]
    bundles = await asyncio.to_thread(
        lambda: [_bundle(console, each, decided.get(each, Counter())) for each in digests]
    )
    at_work = Counter(each.digest for each in reports)
    for each in bundles:
        each["workers"] = at_work[each["digest"]]
        each["own"] = each["digest"] == own.bundle.digest
    return page(
        request,
        "governance_policies.html.jinja",
        tab="policies",
        workers=[_worker(each) for each in reports],
        bundles=bundles,
        disagreements=_disagreements(console.decisions.since(0).rows),
        problems=problems,
        differs=len(at_work) > 1,
        now=console.clock(),
    )


def _reports(console: Console) -> tuple[list[InForceReport], list[str]]:
    try:
        return read_reports(console.config.state)
    except PolicyError as error:
        return [], [str(error)]


def _worker(report: InForceReport) -> dict[str, Any]:
    standing = report.standing
    return {
        "host": report.host,
        "pid": report.pid,
        "worker": standing.worker if standing else None,
        "queues": list(standing.task_queues) if standing else [],
        "unavailable": standing.unavailable if standing else None,
        "seen_at": standing.at if standing else report.since,
        "digest": report.digest,
        "name": report.name,
        "version": report.version,
        "channel": report.channel,
        "since_at": report.since,
        "expires_at": report.expires,
    }


def _bundle(console: Console, digest: str, decided: Counter[str]) -> dict[str, Any]:
    """A bundle's policies with how often each decided; those that decided without being known stand there, too."""
    bundle, problem = _found(console, digest)
    known = [] if bundle is None else list(bundle.policies.items())
    texts = {} if bundle is None else {name: each.text for name, each in locations(bundle.source).items()}
    listed = [
        {
            "policy": each.id,
            "effect": each.effect,
            "reason": each.reason,
            "approval": each.approval,
            "text": texts.get(cedar_id),
            "decided": decided.get(each.id, 0),
        }
        for cedar_id, each in known
    ]
    names = {each.id for _, each in known}
    listed += [
        {"policy": name, "effect": "", "reason": None, "approval": None, "text": None, "decided": times}
        for name, times in sorted(decided.items())
        if name not in names
    ]
    return {
        "digest": digest,
        "policies": listed,
        "decided": sum(decided.values()),
        "problem": problem,
    }


def _found(console: Console, digest: str) -> tuple[PolicyBundle | None, str | None]:
    own = console.governing.gate.policy.bundle
    if digest == own.digest:
        return own, None
    if digest not in _kept:
        sources = [str(console.config.state), *console.config.evidence]
        try:
            bundle = archived(sources, digest)
        except (PolicyError, EvidenceError) as error:
            return None, str(error)
        if bundle is None:
            return None, "It is not in the evidence that is followed here."
        if len(_kept) >= _KEPT:
            _kept.pop(next(iter(_kept)))
        _kept[digest] = bundle
    return _kept[digest], None


def _disagreements(rows: Any) -> list[dict[str, Any]]:
    """What candidates would have decided otherwise, alike ones together, the latest first."""
    found: dict[tuple[str, str, str, tuple[str, ...], str], list[Decision]] = {}
    for row in rows:
        if row.kind == "shadow":
            found.setdefault((row.action, row.shadow, row.outcome, row.policies, row.bundle), []).append(row)
    listed: list[dict[str, Any]] = [
        {
            "action": action,
            "was": was,
            "outcome": would,
            "policies": list(policies),
            "digest": digest,
            "times": len(alike),
            "last_at": alike[-1].at,
            "workflow_id": alike[-1].workflow_id,
            "run_id": alike[-1].run_id,
        }
        for (action, was, would, policies, digest), alike in found.items()
    ]
    return sorted(listed, key=lambda each: -each["last_at"])[:_DISAGREEMENTS]
