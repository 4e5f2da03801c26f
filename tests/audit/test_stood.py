"""Audits of runs that stand on approvals, renewed grants, restrictions, resets and completions from outside."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from exequatur.audit.report import Severity, Verdict
from tests.audit.judging import Bench, judged
from tests.audit.runs import Runs
from tests.audit.stood import record


@pytest_asyncio.fixture(scope="module")
async def stood(target: str, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder: Path = tmp_path_factory.mktemp("stood")
    return await record(target, folder / "all")


@pytest.fixture(scope="module")
def bench(stood: Runs) -> Iterator[Bench]:
    bench = Bench(stood)
    yield bench
    bench.close()


def test_no_untouched_run_is_flagged(bench: Bench) -> None:
    for (name, evidence), report in bench.recorded.items():
        graver = [each for each in report.findings if each.severity is Severity.VIOLATION]
        assert not graver, (name, evidence, graver)
        assert not evidence or report.verdict is Verdict.VERIFIED, (name, report.findings)
    for name in bench.runs:
        r = bench.recorded[name, True]
        print(name, sorted({f.code for f in r.findings}), [(a.activity_type, a.outcome, a.proof, a.approved_by, a.completed_by, bool(a.restricted)) for a in r.activities])
