"""The examples of :mod:`workflows.agents` on the session's server. Frameworks are imported where tests need them."""

import importlib
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from workflows.agents import stage as staging
from workflows.agents.stage import Example, Stage

MODULES = {
    "openai": "workflows.agents.openai_agent",
    "pydantic": "workflows.agents.pydantic_agent",
    "mcp": "workflows.agents.mcp_agent",
}

SetStage = Callable[[Example], Awaitable[Stage]]


@pytest.fixture(params=MODULES)
def example(request: pytest.FixtureRequest) -> Example:
    """Each of the examples."""
    return example_of(request.param)


def example_of(name: str) -> Example:
    found: Example = importlib.import_module(MODULES[name]).EXAMPLE
    return found


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the policies for agents, for a test to edit before it sets the stage."""
    copy = tmp_path / "policies"
    shutil.copytree(staging.POLICIES, copy)
    monkeypatch.setattr(staging, "POLICIES", copy)
    return copy


@pytest.fixture
def set_stage(target: str, tmp_path: Path) -> SetStage:
    """Connects an example with the session's server."""

    async def connected(example: Example) -> Stage:
        folder = tmp_path / "stage"
        folder.mkdir()
        return await example.connect(target, folder)

    return connected
