"""Plugins for tests: their own keys, their own state folder, and no setting from outside the test."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from exequatur.errors import ConfigurationError
from exequatur.identity.principal import Principal
from exequatur.plugin import AuthorizationPlugin
from exequatur.settings import Settings

_tested: weakref.WeakSet[AuthorizationPlugin] = weakref.WeakSet()
"""The plugins whose decisions a failed assertion tells."""


def make_plugin(
    policies: str | PathLike[str],
    *,
    principal: Principal | str | None = None,
    state_dir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> AuthorizationPlugin:
    """Make a plugin with real keys that knows nothing but what it is given here.

    Neither ``exequatur.toml`` nor the environment is read: a test must not ship evidence to the store that is
    configured for production.

    Args:
        policies: The policy folder, or what else :meth:`~exequatur.AuthorizationPlugin.embedded` takes.
        principal: On whose behalf; text is ``Type::"id"``. :func:`exequatur.acting_as` takes precedence.
        state_dir: Where keys, revocations and evidence go; a temporary folder, gone with the plugin, when absent.
        settings: Settings by name.

    Raises:
        ConfigurationError: A setting, the principal or the state folder cannot be used.
        PolicyError: The policies cannot be used.
    """
    temporary = tempfile.mkdtemp(prefix="exequatur-test-") if state_dir is None else None
    try:
        plugin = AuthorizationPlugin.embedded(
            os.fspath(policies),
            state_dir=temporary or Path(state_dir or ""),
            principal=principal_of(principal),
            settings=_settings(settings or {}),
        )
    except BaseException:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    if temporary:
        weakref.finalize(plugin, shutil.rmtree, temporary, ignore_errors=True)
    return tested(plugin)


def tested(plugin: AuthorizationPlugin) -> AuthorizationPlugin:
    """Have failed assertions tell what this plugin decided."""
    _tested.add(plugin)
    return plugin


def tested_plugins() -> list[AuthorizationPlugin]:
    """The plugins in use."""
    return list(_tested)


def journal_of(plugin: AuthorizationPlugin) -> Path:
    """The folder of its evidence journals."""
    return plugin._serving._journal


def principal_of(principal: Principal | str | None) -> Principal | None:
    """The principal that is meant.

    Raises:
        ConfigurationError: It is not written as ``Type::"id"``.
    """
    if not isinstance(principal, str):
        return principal
    try:
        return Principal.parse(principal)
    except ValueError as err:
        raise ConfigurationError(f"The principal cannot be read: {err}") from err


def _settings(given: Mapping[str, Any]) -> Settings:
    try:
        return Settings(**given)
    except ValidationError as err:
        [first, *_] = err.errors(include_url=False, include_input=False)
        name = ".".join(map(str, first["loc"])) or "settings"
        raise ConfigurationError(f"{name} given in the test: {first['msg']}; see docs/settings.md") from err
