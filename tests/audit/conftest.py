"""Real runs, recorded once a session."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.audit.judging import Bench
from tests.audit.runs import Runs, record
from tests.gate.conftest import executor, stage

__all__ = ["executor", "stage"]


@pytest_asyncio.fixture(scope="session")
async def runs(target: str, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One run of each kind, with the journals of the workers that are gone by now."""
    folder: Path = tmp_path_factory.mktemp("audited")
    return await record(target, folder / "all")


@pytest.fixture(scope="session")
def bench(runs: Runs) -> Iterator[Bench]:
    """The recorded runs as events, and an auditor for what is made of them."""
    bench = Bench(runs)
    yield bench
    bench.close()
