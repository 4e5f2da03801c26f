"""A clock that a test moves ahead, and the folder of policies that it writes."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from exequatur import AuthorizationPlugin, ConfigurationError
from exequatur.testing import Clock, GatedActivityEnvironment, PolicyFiles, assert_denied
from exequatur.testing.fixtures import exequatur_policies as offered
from tests.testing.scenes import refund


def test_it_goes_on_from_where_it_was_moved_to() -> None:
    clock = Clock()
    moment = clock.now + timedelta(days=3)
    clock.advance_to(moment)
    assert timedelta() <= clock.now - moment < timedelta(minutes=1)
    clock.advance(timedelta(hours=1))
    assert timedelta(hours=1) <= clock.now - moment < timedelta(hours=1, minutes=1)


def test_it_neither_goes_back_nor_out_of_what_a_gate_believes() -> None:
    clock = Clock()
    with pytest.raises(ValueError, match="only goes forward"):
        clock.advance(timedelta(seconds=-1))
    with pytest.raises(ValueError, match="only goes forward"):
        clock.advance_to(clock.now - timedelta(minutes=1))
    with pytest.raises(ValueError, match="2100"):
        clock.advance(timedelta(days=365 * 80))
    with pytest.raises(ValueError, match="time zone"):
        clock.advance_to(datetime(2030, 1, 1))  # noqa: DTZ001 (what is refused)


async def test_policies_go_by_it(
    policy_files: PolicyFiles, exequatur_clock: Clock, gated_activities: GatedActivityEnvironment
) -> None:
    day = (exequatur_clock.now + timedelta(days=2)).date()
    policy_files.write(
        f'@id("closed") forbid (principal, action == Action::"refund", resource) when {{'
        f'  context.now >= datetime("{day}") && context.now < datetime("{day + timedelta(days=1)}") }};',
        "closed.cedar",
    )
    assert await gated_activities.run(refund, 1) == "refunded 1"

    exequatur_clock.advance_to(datetime(day.year, day.month, day.day, 12, tzinfo=UTC))
    later = GatedActivityEnvironment(gated_activities.plugin)  # whose grant is of that day
    with assert_denied(by="closed"):
        await later.run(refund, 1)

    exequatur_clock.advance(timedelta(hours=12))
    assert await later.run(refund, 1) == "refunded 1"


def test_a_folder_is_written_piece_by_piece(tmp_path: Path) -> None:
    files = PolicyFiles(tmp_path / "a" / "policies")
    assert files.write("permit (principal, action, resource);").name == "policies.cedar"
    files.schema("entity Agent;")
    files.entities(
        'Agent::"a"', {"uid": {"type": "Role", "id": "r"}, "attrs": {}, "parents": []}, parents=['Role::"r"']
    )
    assert sorted(file.name for file in files.path.iterdir()) == [
        "entities.json",
        "policies.cedar",
        "schema.cedarschema",
    ]
    written = json.loads((files.path / "entities.json").read_text())
    assert written[0] == {"uid": {"type": "Agent", "id": "a"}, "attrs": {}, "parents": [{"type": "Role", "id": "r"}]}

    copy = PolicyFiles(tmp_path / "b")
    copy.copy(files.path)
    assert (copy.path / "policies.cedar").read_text() == "permit (principal, action, resource);"


def test_a_folder_takes_no_other_names(tmp_path: Path) -> None:
    files = PolicyFiles(tmp_path)
    for name in ("refunds.txt", "../refunds.cedar", "a/b.cedar"):
        with pytest.raises(ConfigurationError, match="no policy file"):
            files.write("", name)
    with pytest.raises(ConfigurationError, match="not a Cedar entity"):
        files.entities("ops-bot")
    with pytest.raises(ConfigurationError, match="not a folder"):
        files.copy(tmp_path / "nowhere")


def test_the_projects_own_policies_are_under_test_by_default(pytestconfig: pytest.Config) -> None:
    assert callable(offered)
    assert (pytestconfig.rootpath / "policies").is_dir()


def test_the_fixtures_make_real_keys_in_a_folder_of_the_test(
    exequatur_plugin: AuthorizationPlugin, exequatur_state: Path
) -> None:
    assert "credential.pem" in {file.name for file in (exequatur_state / "keys").glob("*.pem")}
    assert exequatur_plugin.gate.settings.mode == "enforce"
