"""Every activity that the workers of the three agents register: what the schema of policies/agents is made of.

The frameworks bring activities of their own, such as model calls. They are Cedar actions like all others.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

from pydantic_ai.durable_exec.temporal import TemporalDurability

from workflows.agents.mcp_agent import HelpdeskServer, ask_model
from workflows.agents.openai_agent import openai_plugin
from workflows.agents.pydantic_agent import helpdesk
from workflows.agents.tools import HelpdeskTools


def _of_openai() -> list[Any]:
    """What the plugin adds to a worker's activities."""
    add = cast(Callable[[Sequence[Any]], Sequence[Any]], openai_plugin().activities)
    return list(add([]))


def _of_pydantic() -> list[Any]:
    """What the agent's durability adds to a worker's activities."""
    durability = TemporalDurability.from_agent(helpdesk)
    return [] if durability is None else list(durability.temporal_activities)


ACTIVITIES: list[Any] = [HelpdeskTools, HelpdeskServer, ask_model, *_of_openai(), *_of_pydantic()]
