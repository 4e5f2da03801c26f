"""Whatever fits the documented requests, or nearly does, gets a documented answer (schemathesis)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from exequatur.authority import api
from tests.authority.running import DANA, LIMITS, local, running

EXAMPLES = 4
"""Each takes some milliseconds."""
KEPT = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")


def ask_everything(url: str, who: str | None) -> set[tuple[str, int]]:
    """Ask all operations, and tell which answers came."""
    load_all_checks()
    checks = CHECKS.get_by_names(list(KEPT))
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    headers = api.shown(local(who)) if who else {}
    seen: set[tuple[str, int]] = set()
    for found in schema.get_all_operations():
        seen |= ask_one(found.ok(), headers, checks)
    return seen


def ask_one(operation: Any, headers: dict[str, str], checks: Any) -> set[tuple[str, int]]:
    """Ask one operation again and again."""
    seen: set[tuple[str, int]] = set()
    fitting = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    misfitting = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

    @hypothesis.settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=fitting | misfitting)
    def asked(case: Any) -> None:
        wait = (case.query or {}).get("wait")
        if isinstance(wait, int | float):
            case.query["wait"] = min(wait, 0.01)
        response = case.call(headers=headers)
        case.validate_response(response, checks=checks)
        seen.add((operation.label, response.status_code))

    asked()
    return seen


@pytest.mark.parametrize("who", [DANA, None])
async def test_every_answer_is_as_documented(tmp_path: Path, who: str | None) -> None:
    async with running(tmp_path, config=LIMITS) as authority:
        seen = await asyncio.to_thread(ask_everything, authority.url, who)
    assert len({label for label, _ in seen}) > 12
    assert not [each for each in seen if each[1] >= 500]
