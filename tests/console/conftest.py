"""One console a session for what leaves it as it was, and a real browser."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.console.lineage_runs import Made, make
from tests.console.running import Running, running

if TYPE_CHECKING:
    from playwright.async_api import Browser


@pytest.fixture(scope="session", autouse=True)
def quick_ends() -> Iterator[None]:
    """Nobody looks at readiness while a test's console stops."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("exequatur.authority.service.serve.STOPPING", 0.0)
        yield


@pytest_asyncio.fixture(scope="session")
async def console(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A console with the reference policies and nothing else."""
    async with running(tmp_path_factory.mktemp("console")) as started:
        yield started


@pytest_asyncio.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """The Chromium of this machine. None is downloaded."""
    found = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("there is no Chromium on this machine; install Debian's package chromium")
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=str(Path(found)), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


@pytest_asyncio.fixture(scope="session")
async def made_runs(target: str, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Runs of every kind that the lineage pages show."""
    return await make(target, tmp_path_factory.mktemp("lineage") / "made")


@pytest_asyncio.fixture(scope="session")
async def explorer(target: str, made_runs: Made) -> AsyncIterator[Running]:
    """A console with those runs."""
    async with running(made_runs.folder, policies=made_runs.folder / "policies", target=target) as started:
        yield started
