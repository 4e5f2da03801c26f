"""The fixtures that the package offers, and policies to try them on."""

from pathlib import Path

import pytest

from exequatur.testing import PolicyFiles
from exequatur.testing.fixtures import (
    exequatur_clock,
    exequatur_plugin,
    exequatur_settings,
    exequatur_state,
    gated_activities,
    policy_files,
)

__all__ = [
    "exequatur_clock",
    "exequatur_plugin",
    "exequatur_settings",
    "exequatur_state",
    "gated_activities",
    "policy_files",
]

REFUNDS = """
@id("starts") permit (principal in Role::"operations", action == Action::"workflow.start", resource);
@id("children") permit (principal in Role::"operations", action == Action::"workflow.child", resource);
@id("refunds-by-operations") permit (principal in Role::"operations", action == Action::"refund", resource);
@id("waits") permit (principal, action in [Action::"beats", Action::"beats_in_thread"], resource);
@id("refunds-limit") @reason("a refund above 500 needs a person")
forbid (principal, action == Action::"refund", resource) when { context.args.amount > 500 };
"""


@pytest.fixture
def exequatur_policies(policy_files: PolicyFiles) -> Path:
    policy_files.write(REFUNDS)
    policy_files.entities('Agent::"ops-bot"', parents=['Role::"operations"'])
    return policy_files.path


@pytest.fixture
def exequatur_principal() -> str:
    return 'Agent::"ops-bot"'
