"""Testing code that runs behind the gate: the real gate with real keys, without a server or with one.

``pytest`` fixtures are in :mod:`exequatur.testing.fixtures`; the guide is ``docs/testing.md``.
"""

from typing import TYPE_CHECKING

from exequatur.lazy import importer

if TYPE_CHECKING:
    from exequatur.testing.activity import GatedActivityEnvironment
    from exequatur.testing.assertions import (
        assert_allowed,
        assert_denied,
        assert_receipt_rejected,
        assert_rejected,
        assert_revoked,
        assert_unavailable,
    )
    from exequatur.testing.clock import Clock
    from exequatur.testing.folder import PolicyFiles
    from exequatur.testing.plugins import make_plugin
    from exequatur.testing.refusal import Refusal, refusal_of
    from exequatur.testing.workflow import GatedEnvironment, gated_environment

__all__ = [
    "Clock",
    "GatedActivityEnvironment",
    "GatedEnvironment",
    "PolicyFiles",
    "Refusal",
    "assert_allowed",
    "assert_denied",
    "assert_receipt_rejected",
    "assert_rejected",
    "assert_revoked",
    "assert_unavailable",
    "gated_environment",
    "make_plugin",
    "refusal_of",
]

__getattr__ = importer(
    __name__,
    {
        "activity": ("GatedActivityEnvironment",),
        "assertions": (
            "assert_allowed",
            "assert_denied",
            "assert_receipt_rejected",
            "assert_rejected",
            "assert_revoked",
            "assert_unavailable",
        ),
        "clock": ("Clock",),
        "folder": ("PolicyFiles",),
        "plugins": ("make_plugin",),
        "refusal": (
            "Refusal",
            "refusal_of",
        ),
        "workflow": (
            "GatedEnvironment",
            "gated_environment",
        ),
    },
)
