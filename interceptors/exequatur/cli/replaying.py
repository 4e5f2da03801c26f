"""Running the workflow code again over a history, with the SDK's Replayer."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from temporalio.client import WorkflowHistory
from temporalio.converter import DataConverter
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from exequatur.audit.history import RunHistory
from exequatur.audit.report import RunReport, finding
from exequatur.audit.trust import AuditTrust
from exequatur.audit.wording import shown
from exequatur.cli.code import definition_of, workflows_of
from exequatur.plugin import AuthorizationPlugin
from exequatur.settings import Settings

_LONGEST = 1000  # characters of what the SDK says, which may quote the history


class Replaying:
    """Replays as the workers ran: with the plugin, whose verdicts on results are part of what the code saw.

    The plugin has an authority of its own in a temporary folder, and besides it the keys of the trust file, which are
    those that verify what a history holds.
    """

    def __init__(self, workflows: list[type], trust: AuditTrust, converter: DataConverter, folder: Path) -> None:
        policies = folder / "policies"
        policies.mkdir()
        (policies / "none.cedar").write_text('@id("none") forbid(principal, action, resource);\n')
        plugin = AuthorizationPlugin.embedded(policies, state_dir=folder / "state", settings=Settings())
        for anchor in trust.anchors:
            plugin.gate.trust.add(anchor)
        definitions = [definition_of(workflow) for workflow in workflows]
        self._names = {each.name for each in definitions}
        self._replayer = Replayer(workflows=workflows, plugins=[plugin], data_converter=converter)

    def replayed(self, history: RunHistory, report: RunReport) -> RunReport:
        """The report with what the replay of its history says besides."""
        workflow_type = history.started.workflow_type.name
        if workflow_type not in self._names and None not in self._names:
            known = ", ".join(sorted(name for name in self._names if name))
            return _failed(report, f"--workflows names no {workflow_type}, only {known}")
        try:
            failure = asyncio.run(self._failure(history))
        except Exception as error:
            failure = error
        if failure is None:
            return report.model_copy(update={"replay": "deterministic"})
        if not isinstance(failure, NondeterminismError):
            return _failed(report, f"the replay could not be run: {shown(str(failure), _LONGEST)}")
        found = finding("replay-nondeterministic", shown(str(failure), _LONGEST))
        return report.model_copy(update={"replay": "nondeterministic", "findings": (*report.findings, found)})

    async def _failure(self, history: RunHistory) -> Exception | None:
        recorded = WorkflowHistory(history.workflow_id, list(history.events))
        result = await self._replayer.replay_workflow(recorded, raise_on_replay_failure=False)
        return result.replay_failure


@contextmanager
def replaying(workflows: str, trust: AuditTrust, converter: DataConverter | None) -> Iterator[Replaying]:
    """Import workflow code and make ready to replay it.

    Args:
        workflows: ``MODULE[:CLASS],...``.
        trust: The keys that verify what the histories hold.
        converter: The workers'.

    Raises:
        ConfigurationError: The code cannot be imported or has no workflows.
    """
    classes = workflows_of(workflows)
    with tempfile.TemporaryDirectory(prefix="exequatur-replay-") as folder:
        yield Replaying(classes, trust, converter or DataConverter.default, Path(folder))


def _failed(report: RunReport, sentence: str) -> RunReport:
    return report.model_copy(update={"findings": (*report.findings, finding("replay-failed", sentence))})
