"""A process looks at itself again and again: its files, what it has loaded, and what decides in its memory."""

import json
from typing import Any

import pytest

from tests.integrity.conftest import Installation

_scenes: dict[str, Any] = {}


@pytest.fixture
def scenes(installation: Installation) -> dict[str, Any]:
    """What the guard of a real process found in each scene of ``app/scenes.py``; it runs once."""
    if not _scenes:
        installation.sign()
        done = installation.run(installation.app / "scenes.py", installation.manifest, installation.keys)
        assert done.returncode == 0, done.stderr
        _scenes.update(json.loads(done.stdout.splitlines()[-1]), here=str(installation.path))
    return _scenes


@pytest.mark.parametrize(
    "scene",
    [
        "nothing",
        "put back",
        "touched",
        "removed again",
        "added folder",
        "removed folder",
        "loaded",
        "loaded through a link",
        "module that is being loaded",
        "module that was being loaded",
        "whole",
        "compiled",
        "compiled and whole",
    ],
)
def test_what_is_as_it_was_is_no_violation(scenes: dict[str, Any], scene: str) -> None:
    assert scenes[scene] == []


@pytest.mark.rule("guard.G2")
@pytest.mark.parametrize(
    ("scene", "said"),
    [
        ("changed", ["{}/app/shop/prices.py was changed"]),
        ("missing", ["{}/app/shop/prices.py is missing"]),
        ("added file", ["{}/app/shop/extra.py was added"]),
        ("changed as if it were not", ["{}/app/shop/prices.py was changed"]),
        ("added package", ["{}/app/more was added"]),
        ("added file in it", ["{}/app/more/inside/extra.py was added"]),
        ("configuration", ["{}/shop.toml was changed"]),
        ("environment", ["environment variable SHOP_MODE was changed"]),
    ],
)
def test_what_the_worker_consists_of_is_looked_at_again(scenes: dict[str, Any], scene: str, said: list[str]) -> None:
    assert scenes[scene] == [each.format(scenes["here"]) for each in said]


@pytest.mark.rule("loaded.L1")
@pytest.mark.rule("guard.G4")
def test_a_module_that_is_loaded_later_from_a_file_that_was_not_measured_is_a_violation(scenes: dict[str, Any]) -> None:
    [said] = scenes["stranger"]
    assert said == f"module stranger was loaded from {scenes['here']}/outside/stranger.py, which is not measured"


@pytest.mark.rule("loaded.L2")
def test_a_compiled_file_that_does_not_come_from_its_source_is_a_violation(scenes: dict[str, Any]) -> None:
    assert scenes["what ran"] == "another"
    [said] = scenes["compiled file"]
    assert said.endswith(".pyc does not hold what its source is compiled to")


@pytest.mark.rule("guard.G2")
def test_a_compiled_file_is_looked_at_again_also_after_everything_was(scenes: dict[str, Any]) -> None:
    [said] = scenes["compiled file after the whole"]
    assert said.endswith(".pyc was changed")


@pytest.mark.rule("loaded.L5")
def test_a_module_that_was_loaded_while_its_file_was_another_is_a_violation(scenes: dict[str, Any]) -> None:
    assert scenes["what ran meanwhile"] == "another"
    assert scenes["loaded and put back"] == [
        f"{scenes['here']}/app/shop/fleeting.py was changed while module shop.fleeting was loaded"
    ]


@pytest.mark.rule("loaded.L3")
def test_a_folder_that_is_added_to_the_path_is_a_violation(scenes: dict[str, Any]) -> None:
    assert scenes["path"] == [f"{scenes['here']}/outside was added to sys.path and is not measured"]


@pytest.mark.rule("loaded.L4")
def test_a_finder_of_modules_that_was_not_measured_is_a_violation(scenes: dict[str, Any]) -> None:
    assert scenes["finder"] == ["nowhere.Finder finds modules and is not measured"]


@pytest.mark.rule("guard.G5")
@pytest.mark.parametrize(
    ("scene", "said"),
    [
        ("function", "exequatur.gate.attempt.decide was replaced in memory"),
        ("method", "exequatur.gate.gate.Gate.unavailable was replaced in memory"),
        ("added method", "exequatur.gate.gate.Gate.__getattribute__ was added in memory"),
        ("code", "the code of exequatur.gate.gate.Gate.unavailable was replaced in memory"),
        ("module", "module exequatur.gate.attempt was replaced in memory"),
        ("module that was loaded", "json.half.decide was replaced in memory"),
        ("probe", "the probe says so"),
    ],
)
def test_what_decides_is_looked_at_in_memory(scenes: dict[str, Any], scene: str, said: str) -> None:
    assert said in scenes[scene]
    assert scenes["nothing again"] == []


@pytest.mark.rule("guard.G3")
def test_everything_is_measured_again_now_and_then(scenes: dict[str, Any]) -> None:
    assert scenes["unread"] == []
    assert scenes["read again"] == [
        "distribution tiny: tiny.py was changed",
        "beside.py beside the distributions is not in the manifest",
        "the key that signed the manifest is no longer trusted",
    ]


@pytest.mark.rule("guard.G7")
@pytest.mark.rule("files.F1")
def test_what_cannot_be_read_is_uncertain_until_it_can(scenes: dict[str, Any]) -> None:
    unavailable, violation, lost = scenes["unreadable"]
    assert "prices.py is not a regular file" in unavailable
    assert violation is None
    assert lost is None
    assert scenes["readable"] is None


@pytest.mark.rule("guard.G7")
def test_what_only_a_look_at_everything_finds_out_is_uncertain_until_there_was_one(scenes: dict[str, Any]) -> None:
    assert "tiny.py is not a regular file" in scenes["unread when everything was to be read"]
    assert "tiny.py is not a regular file" in scenes["and then only what is loaded"]
    assert scenes["everything was read"] is None
    assert scenes["told of everything"] == ["unknown", "verified"]


@pytest.mark.rule("guard.G2")
def test_what_is_loaded_is_looked_at_also_while_everything_is_read(scenes: dict[str, Any]) -> None:
    assert scenes["meanwhile"].endswith("prices.py was changed")


@pytest.mark.rule("guard.G7")
def test_a_guard_that_has_not_looked_for_long_is_uncertain(scenes: dict[str, Any]) -> None:
    assert scenes["not looked"] == ["it has not been known in time whether this worker is what its manifest says"] * 2
    assert scenes["looked"] is None


@pytest.mark.rule("guard.G6")
def test_a_violation_stays_one_when_the_file_is_put_back(scenes: dict[str, Any]) -> None:
    assert "prices.py was changed" in scenes["sticky"]
    assert scenes["told"][:4] == ["verified", "unknown", "verified", "violated"]


def test_a_file_whose_name_is_no_text_is_a_violation_that_can_be_written_down(scenes: dict[str, Any]) -> None:
    violation, recorded = scenes["strange"]
    assert recorded == [scenes["here"] + r"/app/\udcff\n\x1b.py was added"]
    assert violation == f"This worker is not what its manifest says: {recorded[0]}"
