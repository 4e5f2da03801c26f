"""An agent of Pydantic AI behind the gate: ``python -m workflows.agents.pydantic_agent --help``.

Its model calls are activities by Pydantic AI's own capability for Temporal. So would be its tools, but all tools of a
toolset in one activity with a dict of arguments. Here each tool runs in the workflow and is nothing but a call of an
activity, so that each is a Cedar action with typed arguments.
"""

import sys
from datetime import timedelta
from decimal import Decimal
from typing import Any

from temporalio import workflow
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from pydantic_ai import Agent, ModelMessage, ModelResponse, RunContext, TextPart, Tool, ToolCallPart, ToolDefinition
    from pydantic_ai.capabilities import AbstractCapability
    from pydantic_ai.durable_exec.temporal import PydanticAIPlugin, PydanticAIWorkflow, TemporalDurability
    from pydantic_ai.exceptions import ToolFailed
    from pydantic_ai.messages import ModelRequest, ToolReturnPart, UserPromptPart
    from pydantic_ai.models.function import AgentInfo, FunctionModel

    from workflows.agents.denial import denial
    from workflows.agents.script import Call, next_step
    from workflows.agents.stage import Example, Stage, main
    from workflows.agents.tools import HelpdeskTools

_TIMEOUT = timedelta(seconds=30)


class DenialsForTheModel(AbstractCapability[Any]):
    """A denied tool call fails for the model, with the sentence of the denial, and not the workflow."""

    async def on_tool_execute_error(
        self, ctx: RunContext[Any], *, call: ToolCallPart, tool_def: ToolDefinition, args: Any, error: Exception
    ) -> Any:
        sentence = denial(error)
        if sentence is None:
            raise error
        raise ToolFailed(sentence)


async def read_ticket(ticket_id: str) -> str:
    """Read a ticket."""
    return await workflow.execute_activity_method(HelpdeskTools.read_ticket, ticket_id, start_to_close_timeout=_TIMEOUT)


async def refund_order(order_id: str, amount: Decimal, account: str) -> str:
    """Pay back a part of an order into an account."""
    return await workflow.execute_activity_method(
        HelpdeskTools.refund_order, args=[order_id, amount, account], start_to_close_timeout=_TIMEOUT
    )


async def scripted(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Answers from the script. A real application names a model instead."""
    parts = [part for message in messages if isinstance(message, ModelRequest) for part in message.parts]
    task = next(str(part.content) for part in parts if isinstance(part, UserPromptPart))
    results = [str(part.content) for part in parts if isinstance(part, ToolReturnPart)]
    step = next_step(task, results)
    return ModelResponse([ToolCallPart(step.tool, step.arguments) if isinstance(step, Call) else TextPart(step.text)])


_IN_THE_WORKFLOW = {"temporal": False}

helpdesk = Agent(
    FunctionModel(scripted, model_name="scripted-1"),
    name="helpdesk",
    instructions="Work on the ticket that the user names.",
    tools=[Tool(tool, metadata=_IN_THE_WORKFLOW) for tool in (read_ticket, refund_order)],
    capabilities=[TemporalDurability(activity_config={"start_to_close_timeout": _TIMEOUT}), DenialsForTheModel()],
)


@workflow.defn
class PydanticHelpdesk(PydanticAIWorkflow):
    """Works on a ticket, as its model says."""

    __pydantic_ai_agents__ = (helpdesk,)

    @workflow.run
    async def run(self, task: str) -> str:
        return (await helpdesk.run(task)).output


def working(stage: Stage) -> Worker:
    tools = HelpdeskTools(stage.helpdesk)
    return Worker(
        stage.client,
        task_queue=stage.queue,
        workflows=[PydanticHelpdesk],
        activities=[tools.read_ticket, tools.refund_order],
    )


EXAMPLE = Example("Pydantic AI", PydanticHelpdesk, lambda: [PydanticAIPlugin()], working)

if __name__ == "__main__":
    sys.exit(main("workflows.agents.pydantic_agent"))
