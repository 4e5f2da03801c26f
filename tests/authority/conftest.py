"""One authority service a session, for what leaves it as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.authority.running import LIMITS, Running, running


@pytest.fixture(scope="session", autouse=True)
def quick_ends() -> Iterator[None]:
    """Nobody looks at readiness while a test's service stops."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("exequatur.authority.service.serve.STOPPING", 0.0)
        yield


@pytest_asyncio.fixture(scope="session")
async def authority(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with running(tmp_path_factory.mktemp("authority"), config=LIMITS) as started:
        yield started
