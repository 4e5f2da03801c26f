"""The page about governance: decisions as they happen, policies in force, what people are asked, what is revoked."""

from __future__ import annotations

from fastapi import APIRouter

from exequatur.console import approving, bundles, decided, live, revoking

router = APIRouter()
for each in (live, decided, bundles, approving, revoking):
    router.include_router(each.router)
