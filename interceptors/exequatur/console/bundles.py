"""The policies in force on each worker, how often each decided, and where candidates disagree."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from exequatur.audit.evidence import EvidenceReader
from exequatur.console.addressing import who_asks
from exequatur.console.decision import Decision
from exequatur.console.entering import entered
from exequatur.console.errors import ProblemError
from exequatur.console.parts import console_of
from exequatur.console.render import page
from exequatur.errors import EvidenceError, PolicyError
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.parsing import locations
from exequatur.policy.source import BundleSource
from exequatur.release.report import InForceReport

router = APIRouter()

_KEPT = 16
"""Bundles that stay in memory."""
_DISAGREEMENTS = 100
_WORKERS = 500
_PROBLEMS = 10
_WITHIN = 5.0
"""Seconds that the page waits for bundles that are only in the evidence."""
_kept: dict[str, PolicyBundle] = {}


@router.get("/governance/policies")
async def show(request: Request) -> Response:
    """The page."""
    await entered(request, "governance")
    console = console_of(request)
    known = console.watch.reports()
    reports = known.running
    problems = [*([] if known.unread is None else [known.unread]), *known.problems]
    counts = console.decisions.counts()
    decided: dict[str, Counter[str]] = {}
    for (digest, policy), times in counts.policies.items():
        decided.setdefault(digest, Counter())[policy] += times
    own = console.governing.gate.policy
    digests = list(dict.fromkeys([own.bundle.digest, *(each.digest for each in reports), *sorted(decided)]))[:_KEPT]
    found = {**await _archived(request, digests[1:]), own.bundle.digest: own.bundle}
    bundles = [_bundle(each, found[each], decided.get(each, Counter())) for each in digests]
    at_work = Counter(each.digest for each in reports)
    for each in bundles:
        each["workers"] = at_work[each["digest"]]
        each["own"] = each["digest"] == own.bundle.digest
    return page(
        request,
        "governance_policies.html.jinja",
        tab="policies",
        workers=[_worker(each) for each in reports[:_WORKERS]],
        bundles=bundles,
        disagreements=_disagreements(console.decisions.since(0).rows),
        problems=problems[:_PROBLEMS],
        differs=len(at_work) > 1,
        now=console.clock(),
    )


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


def _bundle(digest: str, found: PolicyBundle | str, decided: Counter[str]) -> dict[str, Any]:
    """A bundle's policies with how often each decided; those that decided without being known stand there, too."""
    bundle, problem = (None, found) if isinstance(found, str) else (found, None)
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


async def _archived(request: Request, digests: Sequence[str]) -> dict[str, PolicyBundle | str]:
    """The bundles out of the evidence; why not, where one is not there."""
    left = [each for each in digests if each not in _kept]

    def look(reader: EvidenceReader) -> dict[str, PolicyBundle]:
        bodies = {each: reader.bundle(each) for each in left}
        return {
            each: PolicyBundle(BundleSource.from_archive(body)) for each, body in bodies.items() if body is not None
        }

    why = "It is not in the evidence that is followed here."
    if left:
        try:
            found = await asyncio.wait_for(console_of(request).runs.looked_up(look, who_asks(request)), _WITHIN)
            _kept.update(found)
        except (PolicyError, EvidenceError) as error:
            why = str(error)
        except ProblemError as error:
            why = error.text
        except TimeoutError:
            why = f"The evidence did not answer within {_WITHIN:.0f} s."
    told: dict[str, PolicyBundle | str] = {each: _kept.get(each, why) for each in digests}
    for each in list(_kept)[:-_KEPT]:
        del _kept[each]
    return told


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
