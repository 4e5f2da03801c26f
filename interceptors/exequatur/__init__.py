"""Exequatur: no Temporal activity executes without an authorization that anyone can verify later.

A worker process registers :class:`AuthorizationPlugin` with ``Client.connect(plugins=[...])`` and nothing else.
"""

from typing import TYPE_CHECKING

from exequatur.lazy import importer

if TYPE_CHECKING:
    from exequatur.approvals import OpenChallenge, approve, list_challenges, reject
    from exequatur.errors import ChallengeError, ConfigurationError, ExequaturError, PolicyError
    from exequatur.failures import (
        AuthorizationDenied,
        AuthorizationRevoked,
        AuthorizationUnavailable,
        GrantRejected,
        ReceiptRejected,
    )
    from exequatur.identity.acting import acting_as
    from exequatur.identity.credential import Credential
    from exequatur.identity.principal import Principal
    from exequatur.identity.sources import ClientCertificate, LocalIdentity, Token, TokenFile
    from exequatur.plugin import AuthorizationPlugin
    from exequatur.policy.action import action
    from exequatur.settings import ObserveRule, Settings
    from exequatur.testing.refusal import Refusal, refusal_of

__all__ = [
    "AuthorizationDenied",
    "AuthorizationPlugin",
    "AuthorizationRevoked",
    "AuthorizationUnavailable",
    "ChallengeError",
    "ClientCertificate",
    "ConfigurationError",
    "Credential",
    "ExequaturError",
    "GrantRejected",
    "LocalIdentity",
    "ObserveRule",
    "OpenChallenge",
    "PolicyError",
    "Principal",
    "ReceiptRejected",
    "Refusal",
    "Settings",
    "Token",
    "TokenFile",
    "acting_as",
    "action",
    "approve",
    "list_challenges",
    "refusal_of",
    "reject",
]

__getattr__ = importer(
    __name__,
    {
        "approvals": ("OpenChallenge", "approve", "list_challenges", "reject"),
        "errors": ("ChallengeError", "ConfigurationError", "ExequaturError", "PolicyError"),
        "failures": (
            "AuthorizationDenied",
            "AuthorizationRevoked",
            "AuthorizationUnavailable",
            "GrantRejected",
            "ReceiptRejected",
        ),
        "identity.acting": ("acting_as",),
        "identity.credential": ("Credential",),
        "identity.principal": ("Principal",),
        "identity.sources": ("ClientCertificate", "LocalIdentity", "Token", "TokenFile"),
        "plugin": ("AuthorizationPlugin",),
        "policy.action": ("action",),
        "settings": ("ObserveRule", "Settings"),
        "testing.refusal": ("Refusal", "refusal_of"),
    },
)
