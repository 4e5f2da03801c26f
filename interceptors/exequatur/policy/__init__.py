"""Cedar policies: what the gate decides by."""

from typing import TYPE_CHECKING

from exequatur.lazy import importer

if TYPE_CHECKING:
    from exequatur.policy.bundle import Decision, PolicyBundle

__all__ = ["Decision", "PolicyBundle"]

__getattr__ = importer(__name__, {"bundle": ("Decision", "PolicyBundle")})
