"""What the workers of a state folder report about themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from exequatur.doctor.causes import step_for
from exequatur.doctor.finding import Finding, fine, problem, warning
from exequatur.errors import PolicyError
from exequatur.release.report import InForceReport, Standing, read_reports

_SILENT = 60.0
"""Seconds; a worker writes its report every ten."""
_SOON = 24 * 3600.0


def reports_of(states: Sequence[Path]) -> tuple[list[InForceReport], list[Finding]]:
    """The reports of all running workers, and what is wrong with report files."""
    reports: list[InForceReport] = []
    findings = []
    for path in states:
        if not path.is_dir():
            continue
        try:
            found, broken = read_reports(path)
        except PolicyError as error:
            findings.append(problem("workers", str(error), "Run this as the workers' user."))
            continue
        reports += found
        findings += [
            warning("workers", text, "Remove the file; a running worker writes its own again.") for text in broken
        ]
    return reports, findings


def examine_workers(
    reports: Sequence[InForceReport], *, namespace: str, digest: str | None, now: float
) -> Iterator[Finding]:
    """Look at each report.

    Args:
        reports: Of running workers.
        namespace: The one that is looked at.
        digest: Of the policies that should be in force, if it is known.
        now: Seconds since 1970.
    """
    if not reports:
        yield warning("workers", "no worker of these state folders is running here", "Start one, or name its folder.")
    for report in reports:
        name = f"worker {report.host} {report.pid}"
        yield from _policies(name, report, digest, now)
        if report.standing is not None:
            yield from _standing(name, report.standing, namespace, now)
    yield from _revocations(reports)


def _policies(name: str, report: InForceReport, digest: str | None, now: float) -> Iterator[Finding]:
    if report.expires is not None and report.expires <= now:
        yield problem("release", f"{name}: its release ended at {_utc(report.expires)}", "Sign the bundle again.")
    elif report.expires is not None and report.expires <= now + _SOON:
        yield warning("release", f"{name}: its release ends at {_utc(report.expires)}", "Sign the bundle again soon.")
    if digest is None:
        return
    if report.digest == digest:
        yield fine("policies-in-force", f"{name}: bundle {digest[:12]} is in force")
    elif report.channel == "canary":
        yield fine("policies-in-force", f"{name}: canary {report.digest[:12]} is in force")
    else:
        text = f"{name}: bundle {report.digest[:12]} is in force, and the policies named here are {digest[:12]}"
        yield problem("policies-in-force", text, "Look into its log for why it refused them, or name what it follows.")


def _standing(name: str, said: Standing, namespace: str, now: float) -> Iterator[Finding]:
    if said.at < now - _SILENT:
        text = f"{name}: has not reported since {_utc(said.at)}"
        step = "See whether it runs and its clock is right; if it has ended, remove its file in the folder in-force."
        yield warning("workers", text, step)
        return
    if said.at > now + _SILENT:
        yield problem(
            "clock", f"{name}: its clock is {said.at - now:.0f} s ahead of this one", "Synchronize the clocks."
        )
    if said.unavailable is not None:
        text = f"{name}: takes no work, because {said.unavailable[:1].lower()}{said.unavailable[1:]}"
        yield problem("workers", text, step_for(said.unavailable))
    elif said.task_queues:
        yield fine("workers", f"{name}: can authorize, on {', '.join(said.task_queues)}")
    else:
        yield fine("workers", f"{name}: can authorize, and serves no task queue, like an authority service")
    if said.credential_expires is None:
        step = "See what its line above and its log say: the authority gave it none."
        yield problem("credential", f"{name}: has no credential", step)
    elif said.credential_expires <= now:
        text = f"{name}: its credential ended at {_utc(said.credential_expires)}"
        yield problem("credential", text, "See whether it reaches its authority, and whether it was revoked.")
    else:
        yield fine("credential", f"{name}: credential until {_utc(said.credential_expires)}")
    if said.namespaces and namespace not in said.namespaces:
        text = f"{name}: works in namespace {', '.join(said.namespaces)}, not in {namespace}"
        yield problem("namespace", text, "Give --namespace, or start the worker in the right one.")


def _revocations(reports: Sequence[InForceReport]) -> Iterator[Finding]:
    versions = {f"{each.host} {each.pid}": each.standing.revocations for each in reports if each.standing is not None}
    if not versions:
        return
    newest = max(versions.values())
    behind = [name for name, version in versions.items() if version < newest]
    if behind:
        text = f"version {newest} of the revocation feed is out, and {', '.join(behind)} does not have it"
        yield problem("revocations", text, "Look again in a few seconds; if it stays so, see what feed it follows.")
    else:
        age = max(each.standing.revocations_age for each in reports if each.standing is not None)
        yield fine("revocations", f"all workers have version {newest} of the revocation feed, {age:.0f} s old at most")


def _utc(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.0f} s since 1970"
