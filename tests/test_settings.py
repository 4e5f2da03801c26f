"""Settings: where they come from, and everything that is refused."""

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from exequatur.errors import ConfigurationError
from exequatur.settings import (
    ObserveRule,
    Settings,
    duration_text,
    settings_page,
    settings_table,
    variable_of,
)

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no settings in the environment."""
    for variable in [name for name in os.environ if name.startswith("EXEQUATUR_")]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(**code: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(**code)
    return str(caught.value)


# Where a setting comes from


def test_without_any_configuration_the_defaults_enforce_and_make_no_exception():
    settings = Settings.load()
    assert settings == Settings()
    assert settings.mode == "enforce"
    assert (settings.observe, settings.allow_ungoverned, settings.recorded_queues) == ((), (), ())
    assert settings.continues_as == {}
    assert settings.grant_ttl == timedelta(hours=24)
    assert not settings.observes("default", "orders", "refund")
    assert not settings.recorded("orders")


def test_code_wins_over_the_environment_over_the_file_over_the_default(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "exequatur.toml").write_text('cluster = "file"\ntrust_domain = "file.example"\ngrant_ttl = "2h"\n')
    monkeypatch.setenv("EXEQUATUR_CLUSTER", "environment")
    monkeypatch.setenv("EXEQUATUR_TRUST_DOMAIN", "environment.example")
    settings = Settings.load(cluster="code")
    assert settings.cluster == "code"
    assert settings.trust_domain == "environment.example"
    assert settings.grant_ttl == timedelta(hours=2)
    assert settings.credential_ttl == timedelta(hours=1)


def test_the_file_that_the_environment_names_is_read_instead_of_the_one_in_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    (folder / "exequatur.toml").write_text('cluster = "here"\ngrant_ttl = "2h"\n')
    (folder / "elsewhere.toml").write_text('cluster = "elsewhere"\n')
    monkeypatch.setenv("EXEQUATUR_CONFIG", str(folder / "elsewhere.toml"))
    settings = Settings.load()
    assert settings.cluster == "elsewhere"
    assert settings.grant_ttl == timedelta(hours=24)


def test_every_setting_can_be_given_in_the_file(folder: Path):
    (folder / "exequatur.toml").write_text(
        """
        trust_domain = "acme.example"
        cluster = "eu-1"
        mode = "enforce"
        allow_ungoverned = ["Nightly"]
        recorded_queues = ["legacy-*"]
        open_messages = ["query:*"]
        grant_ttl = "8h"
        schedule_grant_ttl = "7d"
        max_lifetime = "20d"
        permit_ttl = "10m"
        approval_wait = "2d"
        start_within = 45
        credential_ttl = "PT30M"
        worker_name = "payments-1"
        clock_leeway = "0s"
        schedule_bound = "1d"
        recheck_interval = 0.5
        watchdog_interval = "1s"
        policy_poll_interval = "500ms"
        policy_fetch_interval = "1m"
        policy_keys = "policy-keys.jwks"
        shadow_policies = "next"
        policy_name = "payments"
        unavailable_wait = "0s"
        unavailable_retry_delay = "1.5s"
        max_delegation_depth = 3
        evidence_store = "postgresql://db/evidence"
        ship_interval = "2s"
        shared_state = "postgresql://db/state"
        authority_timeout = "3s"
        authority_ca = "authority-ca.pem"
        revocation_feed = "temporal"
        revocation_freshness = "20s"
        integrity_manifest = "manifest.dsse"
        integrity_keys = "manifest-keys.jwks"
        integrity_interval = "1s"
        integrity_full_interval = "5m"
        environment = "production"
        image_digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
        instance_document = "instance.json"
        instance_trust = "instances.toml"
        identity_config = "identity.toml"
        behavior_baseline = "baseline.json"
        [continues_as]
        Order = ["OrderV2", "OrderV3"]
        [[observe]]
        task_queue = "batch-*"
        [[observe]]
        namespace = "test"
        activity = "export*"
        """
    )
    settings = Settings.load()
    assert settings.model_dump() == {
        "trust_domain": "acme.example",
        "cluster": "eu-1",
        "mode": "enforce",
        "observe": (
            {"namespace": "*", "task_queue": "batch-*", "activity": "*"},
            {"namespace": "test", "task_queue": "*", "activity": "export*"},
        ),
        "allow_ungoverned": ("Nightly",),
        "recorded_queues": ("legacy-*",),
        "continues_as": {"Order": ("OrderV2", "OrderV3")},
        "open_messages": ("query:*",),
        "grant_ttl": timedelta(hours=8),
        "schedule_grant_ttl": timedelta(days=7),
        "max_lifetime": timedelta(days=20),
        "permit_ttl": timedelta(minutes=10),
        "approval_wait": timedelta(days=2),
        "start_within": timedelta(seconds=45),
        "credential_ttl": timedelta(minutes=30),
        "worker_name": "payments-1",
        "clock_leeway": timedelta(0),
        "schedule_bound": timedelta(days=1),
        "recheck_interval": timedelta(milliseconds=500),
        "watchdog_interval": timedelta(seconds=1),
        "policy_poll_interval": timedelta(milliseconds=500),
        "policy_fetch_interval": timedelta(minutes=1),
        "policy_keys": "policy-keys.jwks",
        "shadow_policies": "next",
        "policy_name": "payments",
        "unavailable_wait": timedelta(0),
        "unavailable_retry_delay": timedelta(seconds=1.5),
        "max_delegation_depth": 3,
        "evidence_store": "postgresql://db/evidence",
        "ship_interval": timedelta(seconds=2),
        "shared_state": "postgresql://db/state",
        "authority_timeout": timedelta(seconds=3),
        "authority_ca": "authority-ca.pem",
        "revocation_feed": "temporal",
        "revocation_freshness": timedelta(seconds=20),
        "integrity_manifest": "manifest.dsse",
        "integrity_keys": "manifest-keys.jwks",
        "integrity_interval": timedelta(seconds=1),
        "integrity_full_interval": timedelta(minutes=5),
        "environment": "production",
        "image_digest": f"sha256:{'0' * 64}",
        "instance_document": "instance.json",
        "instance_trust": "instances.toml",
        "identity_config": "identity.toml",
        "behavior_baseline": "baseline.json",
    }


def test_every_setting_can_be_given_in_the_environment(monkeypatch: pytest.MonkeyPatch):
    given_values = {
        "trust_domain": ("acme.example", "acme.example"),
        "cluster": ("eu-1", "eu-1"),
        "mode": ("enforce", "enforce"),
        "observe": ('[{"task_queue": "batch-*"}]', (ObserveRule(task_queue="batch-*"),)),
        "allow_ungoverned": ("Nightly, Weekly", ("Nightly", "Weekly")),
        "recorded_queues": ('["legacy-*", "with,comma"]', ("legacy-*", "with,comma")),
        "open_messages": ("query:*, signal:ping", ("query:*", "signal:ping")),
        "continues_as": ('{"Order": ["OrderV2"]}', {"Order": ("OrderV2",)}),
        "max_delegation_depth": ("3", 3),
        "evidence_store": ("evidence.db", "evidence.db"),
        "policy_keys": ("policy-keys.jwks", "policy-keys.jwks"),
        "shadow_policies": ("next", "next"),
        "policy_name": ("payments", "payments"),
        "image_digest": (f"sha256:{'a' * 64}", f"sha256:{'a' * 64}"),
    }
    for name, field in Settings.model_fields.items():
        usual = ("90s", timedelta(seconds=90)) if field.default is not None else ("given", "given")
        text, _ = given_values.setdefault(name, usual)
        if name in ("watchdog_interval", "unavailable_wait", "integrity_interval"):
            text, _ = given_values[name] = ("2s", timedelta(seconds=2))
        monkeypatch.setenv(f"EXEQUATUR_{name.upper()}", text)
    settings = Settings.load()
    assert {name: getattr(settings, name) for name in given_values} == {
        name: v for name, (_, v) in given_values.items()
    }


def test_an_empty_list_in_the_environment_takes_back_the_one_in_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "exequatur.toml").write_text('allow_ungoverned = ["Nightly"]\n')
    monkeypatch.setenv("EXEQUATUR_ALLOW_UNGOVERNED", "")
    assert Settings.load().allow_ungoverned == ()


def test_settings_cannot_be_changed_afterwards():
    settings = Settings.load()
    with pytest.raises(ValidationError):
        settings.mode = "observe"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Settings.load(observe=[{"activity": "export"}]).observe[0].activity = "*"  # type: ignore[misc]


# Durations


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        ("250ms", timedelta(milliseconds=250)),
        ("30s", timedelta(seconds=30)),
        ("5m", timedelta(minutes=5)),
        ("1h", timedelta(hours=1)),
        ("1d", timedelta(days=1)),
        ("1.5h", timedelta(minutes=90)),
        (" 30 s ", timedelta(seconds=30)),
        ("90", timedelta(seconds=90)),
        ("PT5M", timedelta(minutes=5)),
        ("P1DT12H", timedelta(hours=36)),
        (90, timedelta(seconds=90)),
        (0.25, timedelta(milliseconds=250)),
        (timedelta(minutes=7), timedelta(minutes=7)),
    ],
)
def test_a_duration_may_be_written_in_several_ways(given_value: object, expected: timedelta):
    assert Settings.load(schedule_bound=given_value, clock_leeway=0).schedule_bound == expected


@pytest.mark.parametrize(
    "given_value",
    [
        *[
            "",
            "soon",
            "5 minutes",
            "5M",
            "1h30m",
            "00:05",
            "1 day",
            "-5m",
            "-PT5M",
            "+5m",
            "PT5X",
            "P",
            "٣s",
            "nan",
            "inf",
        ],
        *[True, None, [], {}, float("nan"), float("inf"), -1, 10**400, "9" * 400 + "d", "3651d", timedelta(days=-1)],
        *[0, "0s", "0.5ms"],
    ],
)
def test_what_is_no_usable_duration_is_refused(given_value: object):
    message = refusal(start_within=given_value)
    assert message.startswith("start_within given in code is ")
    assert message.endswith("leave it out for the default (1m)")


@pytest.mark.parametrize("name", ["clock_leeway", "recheck_interval", "unavailable_wait"])
def test_these_durations_may_be_zero(name: str):
    assert getattr(Settings.load(**{name: 0}), name) == timedelta(0)


@pytest.mark.parametrize(
    "name",
    [
        "grant_ttl",
        "start_within",
        "credential_ttl",
        "schedule_bound",
        "watchdog_interval",
        "policy_poll_interval",
        "unavailable_retry_delay",
    ],
)
def test_these_durations_may_not_be_zero(name: str):
    assert f"{name} given in code is 0: must be between 1ms and 87600h" in refusal(**{name: 0})


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3650)))
def test_a_duration_is_shown_as_it_can_be_written(duration: timedelta):
    duration -= timedelta(microseconds=duration.microseconds % 1000)
    assert Settings(recheck_interval=duration_text(duration)).recheck_interval == duration


# Unknown names


def test_an_unknown_setting_in_code_is_refused_with_the_name_it_resembles():
    assert refusal(grant_tll="1h") == "grant_tll given in code: there is no such setting; did you mean grant_ttl?"


def test_an_unknown_setting_in_the_file_is_refused_and_the_file_named(folder: Path):
    (folder / "exequatur.toml").write_text("zzz = 1\n")
    assert refusal() == (
        f"{folder}/exequatur.toml: zzz: there is no such setting; remove it; docs/settings.md lists all settings"
    )


def test_an_unknown_variable_is_refused_with_the_name_it_resembles(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EXEQUATUR_MODES", "enforce")
    assert refusal() == ("environment variable EXEQUATUR_MODES: there is no such setting; did you mean EXEQUATUR_MODE?")


def test_a_variable_that_is_not_in_capitals_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EXEQUATUR_mode", "observe")
    assert "EXEQUATUR_mode: there is no such setting; did you mean EXEQUATUR_MODE?" in refusal()


def test_variables_of_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EXEQUATURS_MODE", "observe")
    monkeypatch.setenv("MODE", "observe")
    assert Settings.load() == Settings()


def test_the_constructor_refuses_unknown_settings_too():
    with pytest.raises(ValidationError):
        Settings(modes="enforce")  # type: ignore[call-arg]


def test_an_unknown_key_of_an_observe_rule_is_refused(folder: Path):
    (folder / "exequatur.toml").write_text('[[observe]]\nactivity = "a"\ntask_que = "b"\n')
    assert refusal() == (
        f"observe in {folder}/exequatur.toml, item 0, task_que: there is no such key; "
        "a rule has namespace, task_queue, activity"
    )


# Bad values


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trust_domain", ""),
        ("trust_domain", "acme/example"),
        ("trust_domain", "acme example"),
        ("trust_domain", "acme.example\n"),
        ("trust_domain", "Acme.example"),
        ("trust_domain", "a" * 256),
        ("trust_domain", 5),
        ("cluster", ""),
        ("cluster", "eu/1"),
        ("cluster", "eu 1"),
        ("mode", "Enforce"),
        ("mode", "off"),
        ("mode", None),
        ("observe", "batch-*"),
        ("observe", {"task_queue": "batch-*"}),
        ("observe", ["batch-*"]),
        ("observe", [{"task_queue": ""}]),
        ("allow_ungoverned", "Nightly"),
        ("allow_ungoverned", [""]),
        ("allow_ungoverned", [1]),
        ("recorded_queues", "legacy"),
        ("recorded_queues", [""]),
        ("continues_as", ["Order"]),
        ("continues_as", {"Order": "OrderV2"}),
        ("continues_as", {"": ["OrderV2"]}),
        ("continues_as", {"Order": [""]}),
        ("max_delegation_depth", 0),
        ("max_delegation_depth", 17),
        ("max_delegation_depth", True),
        ("max_delegation_depth", 2.0),
        ("max_delegation_depth", "2"),
    ],
)
def test_a_bad_value_is_refused_with_its_name_and_the_default(name: str, value: object):
    message = refusal(**{name: value})
    assert message.startswith(f"{name} given in code")
    assert "correct it, or leave it out for the default (" in message
    assert "\n" not in message


def test_a_bad_value_names_the_variable_or_the_file_that_it_came_from(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "exequatur.toml").write_text("trust_domain = 5\ngrant_ttl = 07:32:00\n")
    monkeypatch.setenv("EXEQUATUR_MODE", "off")
    monkeypatch.setenv("EXEQUATUR_CLUSTER", "")
    monkeypatch.setenv("EXEQUATUR_MAX_DELEGATION_DEPTH", "three")
    message = refusal()
    assert message.startswith("5 settings cannot be used:\n- ")
    assert f"trust_domain in {folder}/exequatur.toml is 5: " in message
    assert f"grant_ttl in {folder}/exequatur.toml is datetime.time(7, 32): not a duration" in message
    assert "environment variable EXEQUATUR_MODE is 'off': " in message
    assert "environment variable EXEQUATUR_CLUSTER is '': use letters, digits, dots" in message
    assert "environment variable EXEQUATUR_MAX_DELEGATION_DEPTH is 'three': " in message


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("observe", "batch-*"),
        ("observe", "[" * 100_000),
        ("continues_as", "Order=OrderV2"),
        ("continues_as", ""),
        ("allow_ungoverned", '["Nightly"'),
    ],
)
def test_bad_json_in_a_variable_is_refused_with_an_example(name: str, text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(variable_of(name), text)
    assert f"environment variable {variable_of(name)}: is not valid JSON; write it as " in refusal()


def test_an_empty_item_in_a_list_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EXEQUATUR_ALLOW_UNGOVERNED", "Nightly,,Weekly")
    assert refusal().startswith("environment variable EXEQUATUR_ALLOW_UNGOVERNED, item 1 is ''")


def test_a_value_that_a_better_source_replaces_need_not_be_good(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EXEQUATUR_OBSERVE", "not json")
    monkeypatch.setenv("EXEQUATUR_GRANT_TTL", "soon")
    assert Settings.load(observe=[], grant_ttl="1h").grant_ttl == timedelta(hours=1)


@pytest.mark.parametrize("code", [{"allow_ungoverned": ["*"]}, {"continues_as": {"Order*": []}}])
def test_a_glob_where_only_exact_workflow_types_work_is_refused(code: dict[str, object]):
    assert "takes exact workflow types, not globs" in refusal(**code)


def test_an_observe_rule_that_matches_everything_is_refused():
    for rule in ({}, {"namespace": "*"}, {"namespace": "**", "task_queue": "*", "activity": "*"}):
        assert 'matches everything; give a namespace, task_queue or activity, or set mode = "observe"' in refusal(
            observe=[rule]
        )


def test_a_long_value_is_not_repeated_in_full():
    assert len(refusal(mode="x" * 5000)) < 300


def test_everything_that_is_wrong_is_reported_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "exequatur.toml").write_text("colour = 1\n")
    monkeypatch.setenv("EXEQUATUR_SHAPE", "round")
    monkeypatch.setenv("EXEQUATUR_OBSERVE", "{")
    message = refusal(size=1, mode="off")
    assert message.startswith("5 settings cannot be used:\n- ")
    for part in ("colour", "EXEQUATUR_SHAPE", "EXEQUATUR_OBSERVE", "size given in code", "mode given in code"):
        assert part in message


# The file


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"mode = enforce\n", "Invalid value (at line 1"),
        (b'mode = "enforce"\nmode = "observe"\n', "Cannot overwrite a value (at line 2"),
        (b'cluster = "\xff"\n', "can't decode byte 0xff"),
    ],
)
def test_a_file_that_is_not_toml_is_refused_with_the_place(folder: Path, content: bytes, why: str):
    (folder / "exequatur.toml").write_bytes(content)
    message = refusal()
    assert message.startswith(f"{folder}/exequatur.toml is not valid TOML: ")
    assert why in message


def test_a_named_file_that_is_not_there_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EXEQUATUR_CONFIG", str(folder / "gone.toml"))
    assert refusal() == (
        f"{folder}/gone.toml (named by EXEQUATUR_CONFIG) cannot be read: No such file or directory; "
        "make it a readable file"
    )


def test_an_empty_name_of_a_file_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EXEQUATUR_CONFIG", "")
    assert refusal() == "EXEQUATUR_CONFIG is empty; name a file in it or unset it"


def test_a_folder_in_place_of_the_file_is_refused(folder: Path):
    (folder / "exequatur.toml").mkdir()
    assert refusal() == f"{folder}/exequatur.toml cannot be read: Is a directory; make it a readable file"


def test_a_dangling_link_in_place_of_the_file_is_refused(folder: Path):
    (folder / "exequatur.toml").symlink_to("gone.toml")
    assert "exequatur.toml cannot be read: No such file or directory" in refusal()


def test_a_file_without_read_permission_is_refused(folder: Path):
    (folder / "exequatur.toml").touch(mode=0)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)  # root reads every file
    try:
        assert "exequatur.toml cannot be read: Permission denied" in refusal()
    finally:
        os.seteuid(before)


# Combinations


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            {"mode": "observe", "observe": [{"activity": "export"}]},
            "mode given in code is 'observe' and observe given in code is [{'activity': 'export'}]: mode \"observe\" "
            'observes everywhere, so rules beside it say nothing; remove the rules, or set mode = "enforce"',
        ),
        (
            {"credential_ttl": "59s"},
            "credential_ttl given in code is '59s': a worker cannot renew its credential more than once a minute; "
            "set it to 1m or more",
        ),
        (
            {"grant_ttl": "59s"},
            "grant_ttl given in code is '59s' and start_within is 1m by default: a grant must not end before its run "
            "may start; raise grant_ttl or lower start_within",
        ),
        (
            {"clock_leeway": "301s"},
            "clock_leeway given in code is '301s': every expired statement would live on for that long; set it to 5m "
            "or less and synchronize the clocks",
        ),
        (
            {"watchdog_interval": "5001ms"},
            "watchdog_interval given in code is '5001ms': a revoked activity would run on for that long; set it to 5s "
            "or less",
        ),
        (
            {"schedule_bound": "29s"},
            "schedule_bound given in code is '29s' and clock_leeway is 30s by default: clocks that are allowed to "
            "differ would break every request; raise schedule_bound or lower clock_leeway",
        ),
        (
            {"unavailable_wait": "61s"},
            "unavailable_wait given in code is '61s': a worker's slots would be held by activities that cannot run; "
            "set it to 1m or less",
        ),
    ],
)
def test_an_impossible_combination_is_refused_with_both_sources_and_the_next_step(
    code: dict[str, object], message: str
):
    assert refusal(**code) == message
    with pytest.raises(ValidationError):
        Settings(**code)


def test_the_bounds_of_the_combinations_are_allowed():
    Settings.load(
        credential_ttl="1m",
        grant_ttl="1m",
        start_within="1m",
        clock_leeway="5m",
        schedule_bound="5m",
        watchdog_interval="5s",
        unavailable_wait="1m",
    )


def test_a_combination_names_the_sources_of_both_settings(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "exequatur.toml").write_text('grant_ttl = "10s"\n')
    monkeypatch.setenv("EXEQUATUR_START_WITHIN", "5m")
    assert refusal().startswith(
        f"grant_ttl in {folder}/exequatur.toml is '10s' and environment variable EXEQUATUR_START_WITHIN is '5m': "
    )


# What the settings answer


def test_in_observe_mode_every_activity_is_observed():
    assert Settings.load(mode="observe").observes("default", "orders", "refund")


def test_an_observe_rule_applies_only_where_all_of_its_globs_match():
    settings = Settings.load(observe=[{"namespace": "test-*", "activity": "export*"}, {"task_queue": "batch"}])
    assert settings.observes("test-1", "orders", "export_customers")
    assert settings.observes("default", "batch", "refund")
    assert not settings.observes("test-1", "orders", "refund")
    assert not settings.observes("default", "orders", "export_customers")
    assert not settings.observes("default", "Batch", "refund")
    assert not settings.observes("default", "batch-2", "refund")


def test_only_listed_task_queues_may_answer_without_a_receipt():
    settings = Settings.load(recorded_queues=["legacy-*"])
    assert settings.recorded("legacy-java")
    assert not settings.recorded("Legacy-java")
    assert not settings.recorded("orders")


# The documentation


def test_the_table_lists_every_setting_with_its_variable_and_default():
    lines = settings_table().splitlines()
    assert len(lines) == 2 + len(Settings.model_fields)
    assert "| `grant_ttl` | `EXEQUATUR_GRANT_TTL` | `24h` | How long a grant is valid. |" in lines
    assert all(field.description and "|" not in field.description for field in Settings.model_fields.values())


def test_the_example_in_the_documentation_is_valid(folder: Path):
    (folder / "exequatur.toml").write_text(settings_page().split("```toml\n")[1].split("```")[0])
    assert Settings.load().trust_domain == "acme.example"


def test_the_settings_in_the_documentation_are_those_of_the_code():
    assert (ROOT / "docs" / "settings.md").read_text() == settings_page(), "stale; run `make docs`"


@given(st.dictionaries(st.sampled_from(sorted(Settings.model_fields)), st.text() | st.integers() | st.none()))
def test_no_value_whatever_raises_anything_but_a_configuration_error(code: dict[str, object]):
    try:
        settings = Settings.load(**code)
    except ConfigurationError:
        return
    json.loads(settings.model_dump_json())
