"""The plugin: the one object that a user registers."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import temporalio.activity
import temporalio.client
import temporalio.worker
from temporalio.api.common.v1 import Payload
from temporalio.client import ClientConfig, WorkflowHistory
from temporalio.common import HeaderCodecBehavior, RawValue
from temporalio.converter import DataConverter
from temporalio.runtime import Runtime
from temporalio.service import ConnectConfig, ServiceClient
from temporalio.worker import (
    ActivityInboundInterceptor,
    FixedSizeSlotSupplier,
    NexusOperationInboundInterceptor,
    Replayer,
    ReplayerConfig,
    Worker,
    WorkerConfig,
    WorkerTuner,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowReplayResult,
    WorkflowRunner,
)
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from exequatur.assembly import Parts, embedded, given, remote
from exequatur.errors import ConfigurationError, PolicyError
from exequatur.gate.activity import ActivityInbound
from exequatur.gate.client import ClientOutbound
from exequatur.gate.client.asking import acting_for
from exequatur.gate.client.operations import Question
from exequatur.gate.client.service import AskingService
from exequatur.gate.codec import ObservingCodec
from exequatur.gate.gate import EARLIEST, LATEST
from exequatur.gate.issuing import ActionOrder
from exequatur.gate.metrics import Metrics
from exequatur.gate.nexus import NexusInbound
from exequatur.gate.platform import check_platform
from exequatur.gate.slots import FixedSlots, GatedSlots, GatedTuner
from exequatur.gate.watched import WatchedWorker
from exequatur.gate.workflow import WorkflowInbound
from exequatur.identity.principal import UNAUTHENTICATED, Principal
from exequatur.identity.sources import Identity
from exequatur.release.report import InForceReport, report_of
from exequatur.revocation.entry import revocation
from exequatur.settings import Settings
from exequatur.statements.keys import warm_up

logger = logging.getLogger("exequatur")

PASSTHROUGH = ("exequatur", "cryptography", "_cffi_backend", "cedarpy")
"""Modules that the workflow sandbox must not import anew."""


class AuthorizationPlugin(temporalio.client.Plugin, temporalio.worker.Plugin):
    """No activity executes without authorization.

    Give it to ``Client.connect(plugins=[...])``; the workers of that client inherit it. Give it to a ``Replayer`` to
    replay governed histories. One instance serves any number of clients and workers.

    Args:
        authority: URL of an authority service. Use :meth:`embedded` for a plugin that is its own authority.
        identity: How this process identifies itself there, for example ``TokenFile("/var/run/secrets/token")``.
        policies: As for :meth:`embedded`. Without it, workers follow the policies that the authority hands out, which
            then must be signed (``policy_keys``); a process that runs no worker needs none.
        state_dir: Folder for the trust anchors that were learned, and for evidence; made when it is missing. It holds
            no key.
        principal: A name instead of ``identity``, for an authority for development, which believes names.
        settings: What can be configured; read from ``options``, the environment and ``exequatur.toml`` when absent.
        options: Settings by name, which take precedence over environment and file.

    Raises:
        ConfigurationError: The URL, a setting, the identity or the state folder cannot be used.
        PolicyError: The policies that were named cannot be used.
    """

    def __init__(
        self,
        authority: str,
        *,
        identity: Identity | None = None,
        policies: str | Path | None = None,
        state_dir: str | Path = ".exequatur",
        principal: Principal | None = None,
        settings: Settings | None = None,
        **options: Any,
    ) -> None:
        parts = remote(authority, identity, principal, Path(state_dir), policies, given(settings, options))
        self._assemble(parts, principal or UNAUTHENTICATED)

    def _assemble(self, parts: Parts, principal: Principal | None) -> None:
        check_platform()
        warm_up()
        self.gate = parts.gate
        self._authority = parts.authority
        self._serving = parts.serving
        self._control = parts.control
        self._principal = principal
        self._interceptor = _Interceptor(self)

    @classmethod
    def embedded(
        cls,
        policies: str | Path,
        *,
        state_dir: str | Path = ".exequatur",
        principal: Principal | None = None,
        settings: Settings | None = None,
        **options: Any,
    ) -> AuthorizationPlugin:
        """Make a plugin that is its own authority.

        Keys are made and kept in ``state_dir``; whoever can read that folder can issue grants. Clients and workers that
        belong together share it.

        Args:
            policies: Folder with ``*.cedar``, and optionally a schema and ``entities.json``; or a bundle file, its
                ``http(s)`` URL, or ``store:`` and the URL of an evidence store. It is watched: an edit of a folder or
                file is in force within a second, and a broken one is refused.
            state_dir: Folder for keys, revocations and evidence; made when it is missing.
            principal: On whose behalf this process starts workflows, unless :func:`exequatur.acting_as` says otherwise.
            settings: What can be configured; read from ``options``, the environment and ``exequatur.toml`` when absent.
            options: Settings by name, which take precedence over environment and file.

        Raises:
            ConfigurationError: A setting, the state folder or a key file cannot be used.
            PolicyError: The policies cannot be used.
        """
        parts = embedded(Path(state_dir), policies, given(settings, options))
        plugin = cls.__new__(cls)
        plugin._assemble(parts, principal)
        return plugin

    @property
    def in_force(self) -> InForceReport:
        """The policy bundle in force: its digest and, for a bundle file, name, version, channel and sequence."""
        policy = self.gate.policy
        return report_of(policy.bundle.digest, policy.provenance, policy.since)

    def revoke(
        self,
        *,
        grant: str | None = None,
        principal: Principal | str | None = None,
        workflow: str | None = None,
        activity: str | None = None,
        worker: str | None = None,
        key: str | None = None,
        code: str | None = None,
        bundle: str | None = None,
        everything: bool = False,
        until: float | None = None,
        reason: str,
    ) -> int:
        """Revoke, and end what is running under it.

        What is given together must match together. The revocation is on disk when this returns; every process with the
        same state folder follows, and everybody who follows its feed.

        Args:
            grant: ``jti`` of a grant.
            principal: The principal, or ``Type::"id"``.
            workflow: Workflow id.
            activity: Activity type.
            worker: SPIFFE id of a worker, as its credential has it.
            key: Thumbprint of a key, the authority's or a worker's.
            code: Digest of the code that workers run.
            bundle: Digest of a policy bundle; no worker decides by it.
            everything: The kill switch.
            until: When it ends by itself, in seconds since 1970.
            reason: A sentence for those whose work ends.

        Returns:
            The version of the revocation feed, which is the number of this entry.

        Raises:
            ConfigurationError: Nothing is named, or everything and something, or the principal is not ``Type::"id"``.
            ExequaturError: It could not be written; nothing was revoked.
        """
        if isinstance(principal, str):
            try:
                principal = Principal.parse(principal)
            except ValueError as err:
                raise ConfigurationError(f"Nothing was revoked: {err}") from err
        return self.gate.revocations.add(
            revocation(
                grant=grant,
                principal=str(principal) if principal is not None else None,
                workflow=workflow,
                activity=activity,
                worker=worker,
                key=key,
                code=code,
                bundle=bundle,
                everything=everything,
                until=until,
                reason=reason,
            )
        )

    def lift(self, number: int, *, reason: str) -> int:
        """Lift a revocation. What it ended stays ended; what comes from now on is decided without it.

        Args:
            number: What :meth:`revoke` returned.
            reason: A sentence for those who read the feed.

        Returns:
            The version of the revocation feed.

        Raises:
            ConfigurationError: There is no such revocation, or it has been lifted.
            ExequaturError: It could not be written; nothing was lifted.
        """
        return self.gate.revocations.add(revocation(lifts=number, reason=reason))

    async def _ask(self, question: Question) -> None:
        """Ask for a call that goes straight to the server."""
        who = await acting_for(question.what, lambda: self._principal, self._serving.refresh)
        await self._authority.authorize(
            ActionOrder(
                who.principal,
                question.action,
                question.workflow_id,
                question.facts,
                acting=who.acting,
                credential=who.credential,
            )
        )

    # What the SDK calls.

    def name(self) -> str:
        return "exequatur.AuthorizationPlugin"

    def configure_client(self, config: ClientConfig) -> ClientConfig:
        self._instrument(config)
        service = config.get("service_client")  # a test's client has none
        if isinstance(service, ServiceClient):
            if self._control is not None:
                plain = service.inner if isinstance(service, AskingService) else service
                self._control.attach(plain, config.get("namespace", "default"))
            config["service_client"] = AskingService.around(service, self._ask)
        elif service is not None:
            logger.warning(
                "%s is no ServiceClient, so calls that go straight to the server are not asked about",
                type(service).__name__,
            )
        return config

    async def connect_service_client(
        self, config: ConnectConfig, next: Callable[[ConnectConfig], Awaitable[ServiceClient]]
    ) -> ServiceClient:
        return await next(config)

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        client = config["client"]
        active = client.config(active_config=True)
        if not self._registered(active["interceptors"]):
            raise ConfigurationError(
                "The worker's client does not have the plugin; give it to Client.connect(plugins=[...]) instead"
            )
        tuner = config.get("tuner")
        if tuner is not None and isinstance(_activity_slots(tuner), GatedSlots):
            return config  # registered twice
        self._check_outermost(client)
        config["workflow_runner"] = _passing_through(config["workflow_runner"])
        self._gate_slots(config)
        return config

    async def run_worker(self, worker: Worker, next: Callable[[Worker], Awaitable[None]]) -> None:
        async with AsyncExitStack() as stack:
            try:
                self._check_clock()
                self._check_outermost(worker.client)
                runtime = worker.client.service_client.config.runtime or Runtime.default()
                self.gate.metrics = Metrics(runtime.metric_meter, self.gate.metrics.tally)
                self.gate.metrics.policy_in_force(self.gate.policy.bundle.digest, self.gate.policy.provenance)
                config = worker.config(active_config=True)
                _check_runner(config["workflow_runner"])
                names = _activity_names(config)
                self._check_slots(config, worker.client.namespace)
                if self.gate.policy.awaited is not None:
                    await asyncio.to_thread(self._serving.first_policies)
                await self._enter_judging(stack, _named_activities(config))
                await asyncio.to_thread(self._serving.adopt)
                stack.enter_context(self.gate.workload.covering(worker.client.namespace, worker.task_queue, names))
                if self.gate.guard is not None:
                    watched = WatchedWorker(worker, self.gate, self._interceptor)
                    stack.enter_context(self.gate.guard.probing(watched.changes))
                await stack.enter_async_context(self._serving.worker())
            except BaseException:
                # Nothing was started. Without this, leaving ``async with Worker`` would wait for it to end, forever.
                worker._shutdown_complete_event.set()
                raise
            await next(worker)

    async def _enter_judging(self, stack: AsyncExitStack, activities: Mapping[str, Callable[..., Any]]) -> None:
        try:
            stack.enter_context(self.gate.judging(activities))
        except PolicyError as error:
            await asyncio.to_thread(self._serving.replace_unfit, activities, error)
            stack.enter_context(self.gate.judging(activities))

    def configure_replayer(self, config: ReplayerConfig) -> ReplayerConfig:
        self._instrument(config)
        config["workflow_runner"] = _passing_through(config.get("workflow_runner") or SandboxedWorkflowRunner())
        return config

    def run_replayer(
        self,
        replayer: Replayer,
        histories: AsyncIterator[WorkflowHistory],
        next: Callable[
            [Replayer, AsyncIterator[WorkflowHistory]],
            AbstractAsyncContextManager[AsyncIterator[WorkflowReplayResult]],
        ],
    ) -> AbstractAsyncContextManager[AsyncIterator[WorkflowReplayResult]]:
        if runner := replayer.config(active_config=True).get("workflow_runner"):
            _check_runner(runner)
        return next(replayer, histories)

    def _instrument(self, config: ClientConfig | ReplayerConfig) -> None:
        """Put our interceptor first and our codec outermost, once."""
        given: list[Any] = list(config.get("interceptors") or ())
        if self._registered(given):
            return
        config["interceptors"] = [self._interceptor, *given]
        converter = config.get("data_converter", DataConverter.default)
        if converter.payload_codec is not None:
            # Statements are to be as confidential as the payloads whose digests they carry.
            config["header_codec_behavior"] = HeaderCodecBehavior.CODEC
        config["data_converter"] = _observed(converter)

    def _registered(self, interceptors: Any) -> bool:
        """Whether this plugin is already there.

        Raises:
            ConfigurationError: Another one is.
        """
        ours = [each for each in interceptors if isinstance(each, _Interceptor)]
        if any(each.plugin is not self for each in ours):
            raise ConfigurationError("Two different AuthorizationPlugins are registered; use one instance for both")
        return bool(ours)

    def _check_clock(self) -> None:
        now = self.gate.clock()
        if not EARLIEST <= now <= LATEST:
            raise ConfigurationError(f"The clock shows {now:.0f} seconds since 1970; set it before starting a worker")

    def _check_outermost(self, client: temporalio.client.Client) -> None:
        """The gate must be the first that sees an activity, and its codec the first that sees a payload.

        Raises:
            ConfigurationError: Something else is in front.
        """
        active = client.config(active_config=True)
        first: object = next(each for each in active["interceptors"] if isinstance(each, temporalio.worker.Interceptor))
        if first is not self._interceptor:
            raise ConfigurationError(
                f"{type(first).__name__} runs before the gate and could act without authorization; list "
                "AuthorizationPlugin after the plugin that puts it in front"
            )
        _check_converter(active["data_converter"])

    def _gate_slots(self, config: WorkerConfig) -> None:
        """Let the worker take activity tasks only while it can authorize.

        Also where there are no activities: a plugin that comes later may bring some.
        """
        given = config.get("tuner")
        if given is None:
            activities_max = config.get("max_concurrent_activities")
            nexus_max = config.get("max_concurrent_nexus_tasks")
            tuner = WorkerTuner.create_fixed(
                workflow_slots=config.pop("max_concurrent_workflow_tasks", None),
                activity_slots=config.pop("max_concurrent_activities", None),
                local_activity_slots=config.pop("max_concurrent_local_activities", None),
                nexus_slots=config.pop("max_concurrent_nexus_tasks", None),
            )
        else:
            tuner, activities_max, nexus_max = given, given._get_activities_max(), given._get_nexus_tasks_max()
        slots = _activity_slots(tuner)
        if isinstance(slots, FixedSizeSlotSupplier):
            slots = FixedSlots(slots)
        if isinstance(slots, temporalio.worker.CustomSlotSupplier):
            gated = GatedSlots(self.gate, slots)
            config["tuner"] = GatedTuner(tuner, gated, activities_max=activities_max, nexus_max=nexus_max)

    def _check_slots(self, config: WorkerConfig, namespace: str) -> None:
        """Now that all plugins have configured the worker: may its slots be withheld, and can they?"""
        names, tuner = _activity_names(config), config.get("tuner")
        slots = None if tuner is None else _activity_slots(tuner)
        if isinstance(slots, GatedSlots):
            queue = config["task_queue"]
            slots.observing = all(self.gate.settings.observes(namespace, queue, name) for name in names)
        elif names:
            logger.warning(
                "A resource-based tuner cannot be withheld, nor one that a plugin sets that is listed after "
                "AuthorizationPlugin: a worker that cannot authorize goes on polling and fails activities retryably"
            )


class _Interceptor(temporalio.client.Interceptor, temporalio.worker.Interceptor):
    """Makes the interceptors of both sides."""

    def __init__(self, plugin: AuthorizationPlugin) -> None:
        self.plugin = plugin
        self._workflow_class = type("GovernedWorkflowInbound", (WorkflowInbound,), {"gate": plugin.gate})

    def intercept_client(self, next: temporalio.client.OutboundInterceptor) -> temporalio.client.OutboundInterceptor:
        """Stand right before the SDK: what is granted is what is sent, and no other interceptor sees us change it."""
        plugin = self.plugin
        before, innermost = None, next
        while hasattr(innermost, "next"):
            before, innermost = innermost, innermost.next
        client: Any = getattr(innermost, "_client", None)
        if client is not None:
            # A process without a worker would show statements that are to be as confidential as the payloads.
            _check_converter(client.config(active_config=True)["data_converter"])
        ours = ClientOutbound(
            innermost, plugin._authority, lambda: plugin._principal, plugin._serving.refresh, plugin.gate
        )
        if before is None:
            return ours
        before.next = ours
        return next

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return ActivityInbound(next, self.plugin.gate)

    def intercept_nexus_operation(self, next: NexusOperationInboundInterceptor) -> NexusOperationInboundInterceptor:
        return NexusInbound(next, self.plugin.gate)

    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor] | None:
        return self._workflow_class


def _observed(converter: DataConverter) -> DataConverter:
    """The converter with our codec around the user's.

    Raises:
        ConfigurationError: It does not pass raw values through.
    """
    _check_raw_values(converter)
    return dataclasses.replace(converter, payload_codec=ObservingCodec.around(converter.payload_codec))


def _check_converter(converter: DataConverter) -> None:
    """What is in use must still be what :func:`_observed` gave, whatever plugins came later.

    Raises:
        ConfigurationError: It is not.
    """
    if not isinstance(converter.payload_codec, ObservingCodec):
        raise ConfigurationError(
            "Another plugin replaced the data converter, so the gate cannot see payloads; list AuthorizationPlugin "
            "after it"
        )
    _check_raw_values(converter)


def _check_raw_values(converter: DataConverter) -> None:
    probe = Payload(metadata={"encoding": b"binary/plain"}, data=b"\x00")
    try:
        passed = converter.payload_converter.to_payloads([RawValue(probe)]) == [probe]
    except Exception:  # whatever the user's converter raises
        passed = False
    if not passed:
        raise ConfigurationError(
            f"{converter.payload_converter_class.__name__} does not pass temporalio.common.RawValue through; derive it "
            "from CompositePayloadConverter"
        )


def _passing_through(runner: WorkflowRunner) -> WorkflowRunner:
    if isinstance(runner, SandboxedWorkflowRunner):
        return dataclasses.replace(runner, restrictions=runner.restrictions.with_passthrough_modules(*PASSTHROUGH))
    return runner


def _check_runner(runner: WorkflowRunner) -> None:
    """Inside the sandbox a module with native code would be imported anew, and end the process.

    Raises:
        ConfigurationError: A plugin that came later gave another runner.
    """
    if isinstance(runner, SandboxedWorkflowRunner):
        restrictions = runner.restrictions
        if not restrictions.passthrough_all_modules and not restrictions.passthrough_modules >= set(PASSTHROUGH):
            raise ConfigurationError(
                "Another plugin replaced the workflow runner, so the gate cannot run in its sandbox; list "
                "AuthorizationPlugin after it"
            )


def _activity_slots(tuner: WorkerTuner) -> Any:
    return tuner._get_activity_task_slot_supplier()


def _activity_names(config: WorkerConfig) -> list[str]:
    definitions = [temporalio.activity._Definition.must_from_callable(fn) for fn in config.get("activities") or ()]
    return [definition.name or "*" for definition in definitions]


def _named_activities(config: WorkerConfig) -> dict[str, Callable[..., Any]]:
    """The registered activities by type; a dynamic one has none."""
    found = {}
    for fn in config.get("activities") or ():
        if name := temporalio.activity._Definition.must_from_callable(fn).name:
            found[name] = fn
    return found
