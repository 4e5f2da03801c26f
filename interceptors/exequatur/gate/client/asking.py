"""What the parts of the client's interceptor share: on whose behalf, what is sent, and whom to ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.client import OutboundInterceptor
from temporalio.common import RawValue
from temporalio.converter import SerializationContext

from exequatur.failures import AuthorizationDenied
from exequatur.gate.client.addressing import Addressing
from exequatur.gate.gate import Gate
from exequatur.gate.issuing import ActionOrder, Authority
from exequatur.identity.acting import OnBehalf, acting_now
from exequatur.identity.principal import Principal


async def acting_for(
    what: str, default_principal: Callable[[], Principal | None], refresh: Callable[[], Awaitable[None]]
) -> OnBehalf:
    """On whose behalf, with the policies up to date.

    Args:
        what: What is about to be done, for example ``"Order starts"``.
        default_principal: On whose behalf, unless :func:`exequatur.acting_as` says otherwise.
        refresh: Brings the policies up to date in a process that runs no worker.

    Raises:
        AuthorizationDenied: Nobody is named.
    """
    who = acting_now()
    if who is None and (principal := default_principal()) is not None:
        who = OnBehalf(principal)
    if who is None:
        raise AuthorizationDenied(
            f"Nobody is named on whose behalf {what}; use acting_as(Principal(...)) or give the plugin a principal"
        )
    await refresh()
    return who


class Asking(Addressing):
    """Base of the parts.

    Args:
        next: The SDK's own interceptor.
        authority: Who decides.
        default_principal: On whose behalf, unless :func:`exequatur.acting_as` says otherwise.
        refresh: Brings the policies up to date in a process that runs no worker.
        gate: Signs and verifies in this process.
    """

    def __init__(
        self,
        next: OutboundInterceptor,
        authority: Authority,
        default_principal: Callable[[], Principal | None],
        refresh: Callable[[], Awaitable[None]],
        gate: Gate,
    ) -> None:
        super().__init__(next)
        self._authority = authority
        self._default_principal = default_principal
        self._refresh = refresh
        self._gate = gate

    async def _acting(self, what: str) -> OnBehalf:
        """On whose behalf, with the policies up to date.

        Args:
            what: What is about to be done, for example ``"Order starts"``.

        Raises:
            AuthorizationDenied: Nobody is named.
        """
        return await acting_for(what, self._default_principal, self._refresh)

    async def _leave(self, action: str, workflow_id: str, facts: Mapping[str, Any], what: str) -> None:
        """Ask for something that goes straight to the server.

        Raises:
            AuthorizationDenied: It is not allowed.
            AuthorizationUnavailable: It cannot be decided now.
        """
        who = await self._acting(what)
        await self._authority.authorize(
            ActionOrder(who.principal, action, workflow_id, facts, acting=who.acting, credential=who.credential)
        )

    def _payloads(self, args: Sequence[Any], context: SerializationContext) -> list[Payload]:
        """The arguments as they are sent, before the codec."""
        converter = self._client().data_converter.with_context(context).payload_converter
        return converter.to_payloads(args) if args else []


def raw(payloads: Sequence[Payload]) -> list[RawValue]:
    """Payloads in the place of the arguments that they were made from, so that what was signed is what is sent."""
    return [RawValue(payload) for payload in payloads]
