"""The page ``/lineage``: runs, and of one run who did what on whose behalf, and why it was allowed."""

from __future__ import annotations

from fastapi import APIRouter

from exequatur.console import run_compare, run_exports, run_list, run_pages, run_why

router = APIRouter()
for each in (run_list, run_pages, run_why, run_compare, run_exports):
    router.include_router(each.router)
