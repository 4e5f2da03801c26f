"""The honest scene that every scenario here begins with."""

import pytest

from tests.simulator import Scene


@pytest.fixture
def scene() -> Scene:
    return Scene()
