"""Real workers for the scenarios that need them, and a state folder for the others."""

from pathlib import Path

import pytest

from exequatur.authority.state import open_state
from tests.gate.conftest import executor, stage

__all__ = ["executor", "stage"]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder that a process has opened, without a ring."""
    path = tmp_path / "state"
    open_state(path)
    return path
