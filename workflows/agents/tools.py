"""The help desk's tools as activities. Policies judge the arguments before a line of them runs."""

from decimal import Decimal

from temporalio import activity

from exequatur import action
from workflows.agents.helpdesk import Helpdesk


def account_of(order_id: str, amount: Decimal, account: str) -> str:
    """What a refund acts on: where the money goes."""
    return account


class HelpdeskTools:
    """Reading and paying.

    Args:
        helpdesk: The help desk.
    """

    def __init__(self, helpdesk: Helpdesk) -> None:
        self._helpdesk = helpdesk

    @activity.defn
    async def read_ticket(self, ticket_id: str) -> str:
        """Read a ticket."""
        return self._helpdesk.read(ticket_id)

    @activity.defn
    @action(groups=["money"], resource=account_of, resource_type="Account")
    async def refund_order(self, order_id: str, amount: Decimal, account: str) -> str:
        """Pay back a part of an order into an account."""
        info = activity.info()
        # A retry of this activity must not pay twice.
        return self._helpdesk.pay(f"{info.workflow_run_id}-{info.activity_id}", order_id, amount, account)
