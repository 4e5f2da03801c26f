"""All checks, in the order in which a person reads them."""

from __future__ import annotations

import asyncio

from exequatur.doctor.deployment import Deployment
from exequatur.doctor.finding import Finding, problem
from exequatur.doctor.folders import examine_folders
from exequatur.doctor.host import examine_converter
from exequatur.doctor.manifest import examine_manifest
from exequatur.doctor.policies import examine_actions, open_bundle, unasked
from exequatur.doctor.queues import examine_queues
from exequatur.doctor.server import examine_server
from exequatur.doctor.service import examine_authority
from exequatur.doctor.stores import examine_stores
from exequatur.doctor.workers import examine_workers, reports_of
from exequatur.errors import ExequaturError
from exequatur.release.report import InForceReport


async def examine(deployment: Deployment) -> list[Finding]:
    """Look at every part of a deployment that is named. Never raises for what is wrong with it."""
    settings = deployment.settings
    findings = await asyncio.to_thread(lambda: list(examine_folders(deployment.states, settings, deployment.clock())))
    digest = None
    if deployment.policies is not None:
        bundle, found = await asyncio.to_thread(
            open_bundle, deployment.policies, deployment.settings, deployment.clock()
        )
        findings += found
        if bundle is not None:
            digest = bundle.digest
            if deployment.activities is not None:
                findings += examine_actions(bundle, deployment.activities)
    elif deployment.activities is not None:
        findings.append(unasked(deployment.activities))
    reports, found = reports_of(deployment.states)
    findings += found
    if deployment.states:
        findings += examine_workers(reports, namespace=deployment.namespace, digest=digest, now=deployment.clock())
    if deployment.connect is not None:
        findings += await _temporal(deployment, reports)
    if deployment.authority is not None:
        authority = deployment.authority
        findings += await asyncio.to_thread(lambda: list(examine_authority(deployment, authority)))
    findings += await asyncio.to_thread(lambda: list(examine_stores(deployment)))
    findings += await asyncio.to_thread(lambda: list(examine_manifest(deployment.settings)))
    if deployment.converter is not None:
        findings += await examine_converter(deployment.converter)
    return findings


async def _temporal(deployment: Deployment, reports: list[InForceReport]) -> list[Finding]:
    assert deployment.connect is not None  # noqa: S101 - the caller has looked
    try:
        client = await deployment.connect()
    except ExequaturError as error:
        return [problem("server", str(error).partition("; ")[0], "Start it, or check --address and TLS.")]
    findings = await examine_server(client, deployment.namespace, deployment.settings, deployment.clock)
    if not any(each.check == "namespace" and each.level == "problem" for each in findings):
        findings += await examine_queues(
            client,
            deployment.namespace,
            deployment.task_queues,
            reports,
            deployment.settings,
            deployment.clock(),
        )
    return findings
