"""The fixtures of ``exequatur.testing``. To change what one gives, define a fixture of the same name.

============================  ==============================================================================
``exequatur_policies``        the policy folder under test: ``policies`` in the project's root folder
``policy_files``              an empty policy folder of this test, to write policies into
``exequatur_principal``       on whose behalf: nobody, so that a test says it with ``acting_as``
``exequatur_settings``        settings by name: none
``exequatur_state``           the state folder with this test's keys and evidence
``exequatur_plugin``          the plugin, made of all these
``exequatur_clock``           the plugin's clock, to move ahead
``gated_activities``          the environment that runs activities behind the plugin's gate
============================  ==============================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from exequatur.errors import ConfigurationError

if TYPE_CHECKING:
    # At run time when a fixture is used: pytest loads this file wherever the package is installed.
    from exequatur.identity.principal import Principal
    from exequatur.plugin import AuthorizationPlugin
    from exequatur.testing.activity import GatedActivityEnvironment
    from exequatur.testing.clock import Clock
    from exequatur.testing.folder import PolicyFiles

__all__ = [
    "exequatur_clock",
    "exequatur_plugin",
    "exequatur_policies",
    "exequatur_principal",
    "exequatur_settings",
    "exequatur_state",
    "gated_activities",
    "policy_files",
]


@pytest.fixture
def policy_files(tmp_path: Path) -> PolicyFiles:
    """An empty policy folder of this test."""
    from exequatur.testing.folder import PolicyFiles

    return PolicyFiles(tmp_path / "exequatur-policies")


@pytest.fixture
def exequatur_policies(request: pytest.FixtureRequest) -> Path:
    """The policy folder under test: ``policies`` in the project's root folder."""
    folder = request.config.rootpath / "policies"
    if not folder.is_dir():
        raise ConfigurationError(
            f"There is no policy folder {folder}. Define a fixture exequatur_policies that returns yours, or that "
            "writes policies with the fixture policy_files and returns its path"
        )
    return folder


@pytest.fixture
def exequatur_principal() -> Principal | str | None:
    """On whose behalf the test acts where it does not say otherwise."""
    return None


@pytest.fixture
def exequatur_settings() -> dict[str, Any]:
    """Settings by name."""
    return {}


@pytest.fixture
def exequatur_state(tmp_path: Path) -> Path:
    """The state folder, with keys that are made for this test."""
    return tmp_path / "exequatur-state"


@pytest.fixture
def exequatur_plugin(
    exequatur_policies: Path,
    exequatur_principal: Principal | str | None,
    exequatur_settings: dict[str, Any],
    exequatur_state: Path,
) -> AuthorizationPlugin:
    """The plugin, with real keys and the policies under test."""
    from exequatur.testing.plugins import make_plugin

    return make_plugin(
        exequatur_policies, principal=exequatur_principal, state_dir=exequatur_state, settings=exequatur_settings
    )


@pytest.fixture
def exequatur_clock(exequatur_plugin: AuthorizationPlugin) -> Iterator[Clock]:
    """The clock that the plugin goes by."""
    from exequatur.testing.clock import Clock

    clock, machine = Clock(), exequatur_plugin.gate.clock
    exequatur_plugin.gate.clock = clock
    yield clock
    exequatur_plugin.gate.clock = machine


@pytest.fixture
def gated_activities(exequatur_plugin: AuthorizationPlugin) -> GatedActivityEnvironment:
    """Runs activities behind the plugin's gate."""
    from exequatur.testing.activity import GatedActivityEnvironment

    return GatedActivityEnvironment(exequatur_plugin)
