"""The client side of the gate: what leaves for the server was allowed by Cedar, and carries what proves it."""

from exequatur.gate.client.activities import Activities
from exequatur.gate.client.completions import Completions
from exequatur.gate.client.messages import Messages
from exequatur.gate.client.nexus import Nexus
from exequatur.gate.client.schedules import Schedules
from exequatur.gate.client.starts import Starts

__all__ = ["ClientOutbound"]


class ClientOutbound(Starts, Messages, Schedules, Activities, Completions, Nexus):
    """The client's interceptor, put together from its parts."""
