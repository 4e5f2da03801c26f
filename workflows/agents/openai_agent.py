"""An agent of the OpenAI Agents SDK behind the gate: ``python -m workflows.agents.openai_agent --help``.

Its model calls and its tools are activities, by Temporal's own plugin for that SDK. Each of them is a Cedar action.
"""

import dataclasses
import json
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from agents import Agent, FunctionTool, Model, ModelProvider, ModelResponse, RunConfig, Runner, Tool
    from agents.items import TResponseStreamEvent
    from agents.tool_context import ToolContext
    from temporalio.openai_agents import ModelActivityParameters, OpenAIAgentsPlugin
    from temporalio.openai_agents.testing import ResponseBuilders
    from temporalio.openai_agents.workflow import activity_as_tool

    from workflows.agents.denial import denial
    from workflows.agents.script import Call, next_step
    from workflows.agents.stage import Example, Stage, main
    from workflows.agents.tools import HelpdeskTools

MODEL = "scripted-1"


@workflow.defn
class OpenAIHelpdesk:
    """Works on a ticket, as its model says."""

    @workflow.run
    async def run(self, task: str) -> str:
        agent = Agent(
            name="helpdesk",
            instructions="Work on the ticket that the user names.",
            model=MODEL,
            tools=[
                told(activity_as_tool(tool, start_to_close_timeout=timedelta(seconds=30)))
                for tool in (HelpdeskTools.read_ticket, HelpdeskTools.refund_order)
            ],
        )
        # Traces would go to OpenAI; this example stays offline.
        result = await Runner.run(agent, task, run_config=RunConfig(tracing_disabled=True))
        return str(result.final_output)


def told(tool: Tool) -> Tool:
    """The tool, with a denial as its output: without this, a failed activity fails the workflow."""
    if not isinstance(tool, FunctionTool):
        raise TypeError(f"{type(tool).__name__} is not made of an activity")
    invoke = tool.on_invoke_tool

    async def invoke_or_tell(context: ToolContext[Any], arguments: str) -> Any:
        try:
            return await invoke(context, arguments)
        except ActivityError as err:
            sentence = denial(err)
            if sentence is None:
                raise
            return sentence

    return dataclasses.replace(tool, on_invoke_tool=invoke_or_tell)


class ScriptedModel(Model):
    """Answers from the script. A real application leaves this out and gets OpenAI's models."""

    async def get_response(
        self, system_instructions: str | None, input: str | list[Any], *_: Any, **__: Any
    ) -> ModelResponse:
        items = [{"role": "user", "content": input}] if isinstance(input, str) else input
        task = next(str(item["content"]) for item in items if item.get("role") == "user")
        results = [str(item["output"]) for item in items if item.get("type") == "function_call_output"]
        step = next_step(task, results)
        if isinstance(step, Call):
            return ResponseBuilders.tool_call(json.dumps(step.arguments), step.tool, call_id=f"call-{len(results)}")
        return ResponseBuilders.output_message(step.text)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[TResponseStreamEvent]:
        # Every model has this; the SDK calls it only for an agent that is asked to stream, which this one is not.
        raise NotImplementedError("the script does not stream")


class ScriptedModels(ModelProvider):
    def get_model(self, model_name: str | None) -> Model:
        return ScriptedModel()


def openai_plugin() -> OpenAIAgentsPlugin:
    """The SDK's plugin; the application gives it to its client beside the gate's, which comes last."""
    return OpenAIAgentsPlugin(
        model_params=ModelActivityParameters(start_to_close_timeout=timedelta(seconds=30)),
        model_provider=ScriptedModels(),
    )


def working(stage: Stage) -> Worker:
    tools = HelpdeskTools(stage.helpdesk)
    return Worker(
        stage.client,
        task_queue=stage.queue,
        workflows=[OpenAIHelpdesk],
        activities=[tools.read_ticket, tools.refund_order],
    )


EXAMPLE = Example("OpenAI Agents SDK", OpenAIHelpdesk, lambda: [openai_plugin()], working)

if __name__ == "__main__":
    sys.exit(main("workflows.agents.openai_agent"))
