"""Exequatur: no Temporal activity executes without an authorization that anyone can verify later.

A worker process registers :class:`AuthorizationPlugin` with ``Client.connect(plugins=[...])`` and nothing else.
"""

from typing import TYPE_CHECKING

from exequatur.lazy import importer

if TYPE_CHECKING:
    from exequatur.errors import ConfigurationError, ExequaturError, PolicyError
    from exequatur.failures import (
        AuthorizationDenied,
        AuthorizationRevoked,
        AuthorizationUnavailable,
        GrantRejected,
        ReceiptRejected,
    )
    from exequatur.identity.acting import acting_as
    from exequatur.identity.principal import Principal
    from exequatur.plugin import AuthorizationPlugin
    from exequatur.policy.action import action
    from exequatur.settings import ObserveRule, Settings

__all__ = [
    "AuthorizationDenied",
    "AuthorizationPlugin",
    "AuthorizationRevoked",
    "AuthorizationUnavailable",
    "ConfigurationError",
    "ExequaturError",
    "GrantRejected",
    "ObserveRule",
    "PolicyError",
    "Principal",
    "ReceiptRejected",
    "Settings",
    "acting_as",
    "action",
]

__getattr__ = importer(
    __name__,
    {
        "errors": ("ConfigurationError", "ExequaturError", "PolicyError"),
        "failures": (
            "AuthorizationDenied",
            "AuthorizationRevoked",
            "AuthorizationUnavailable",
            "GrantRejected",
            "ReceiptRejected",
        ),
        "identity.acting": ("acting_as",),
        "identity.principal": ("Principal",),
        "plugin": ("AuthorizationPlugin",),
        "policy.action": ("action",),
        "settings": ("ObserveRule", "Settings"),
    },
)
