"""The help desk as an MCP server on standard input and output: ``python -m workflows.agents.mcp_server FOLDER``.

It is a program of somebody else: it knows neither Temporal nor the gate, and does whatever it is asked. What has
reached it stands in ``FOLDER/calls.jsonl``.
"""

import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

from mcp.server import MCPServer

from workflows.agents.helpdesk import Helpdesk

CALLS = "calls.jsonl"


def make_server(folder: Path) -> MCPServer[Any]:
    """A server whose help desk writes into a folder."""
    server = MCPServer("helpdesk")
    helpdesk = Helpdesk(folder / "refunds")

    def called(tool: str, **arguments: Any) -> None:
        with (folder / CALLS).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"tool": tool, **arguments}, default=str) + "\n")

    @server.tool()
    def read_ticket(ticket_id: str) -> str:
        """Read a ticket."""
        called("read_ticket", ticket_id=ticket_id)
        return helpdesk.read(ticket_id)

    @server.tool()
    def refund_order(order_id: str, amount: Decimal, account: str) -> str:
        """Pay back a part of an order into an account."""
        called("refund_order", order_id=order_id, amount=amount, account=account)
        return helpdesk.pay(uuid4().hex, order_id, amount, account)

    @server.tool()
    def delete_ticket(ticket_id: str) -> str:
        """Delete a ticket."""
        called("delete_ticket", ticket_id=ticket_id)
        return f"deleted {ticket_id}"

    return server


if __name__ == "__main__":
    make_server(Path(sys.argv[1])).run("stdio")
