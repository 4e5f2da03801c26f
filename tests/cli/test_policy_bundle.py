"""A bundle from a folder to the workers, by the commands that a person types."""

import json
import os
from pathlib import Path

import pytest

from tests.release.conftest import running_server, shelf

__all__ = ["running_server", "shelf"]  # fixtures

PERMIT = '@id("all") permit(principal, action, resource);\n'
FORBID = PERMIT + '@id("no-refunds") forbid(principal, action == Action::"refund", resource);\n'


@pytest.fixture
def policy(exequatur, tmp_path, monkeypatch):
    """Run ``exequatur policy ...`` in a folder of its own that holds policies."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.cedar").write_text(PERMIT)
    return lambda *args, **environment: exequatur("policy", *map(str, args), **environment)


def built(policy, version: str = "1", text: str = PERMIT) -> Path:
    Path("src/main.cedar").write_text(text)
    assert policy("build", "src", "--version", version, "--author", "ana").code == 0
    return Path("policies.bundle")


@pytest.fixture
def key(policy) -> Path:
    assert policy("keygen", "key").code == 0
    return Path("key/policy-key.pem")


KEYS = "key/policy-keys.jwks"


def test_the_same_folder_is_built_into_the_same_bytes(policy):
    for name, environment in (("a", {"SOURCE_DATE_EPOCH": "1790000000"}), ("b", {})):
        options = [] if environment else ["--time", "2026-09-21T14:13:20Z"]
        ended = policy(
            "build", "src", "--version", "1", "--author", "ana", "-o", f"{name}.bundle", *options, **environment
        )
        assert ended.code == 0, ended.err
    assert Path("a.bundle").read_bytes() == Path("b.bundle").read_bytes()
    assert "no schema" in ended.err


def test_a_build_says_what_it_made(policy):
    ended = policy("build", "src", "--version", "1", "--json", GIT_AUTHOR_NAME="ana")
    said = json.loads(ended.out)
    shown = json.loads(policy("show", "policies.bundle", "--json").out)
    assert (said["address"], said["digest"]) == (shown["address"], shown["digest"])
    assert shown["manifest"]["author"] == "ana"
    assert shown["policies"] == [{"id": "all", "effect": "permit"}]
    assert shown["releases"] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--version", "1"], "--author"),
        (["--version", "", "--author", "a"], "version"),
        (["--version", "1", "--author", "a", "--name", "a/b"], "name"),
        (["--version", "1", "--author", "a", "--time", "now"], "time"),
        (["--version", "1", "--author", "a", "-o", "missing/x.bundle"], "missing"),
    ],
)
def test_a_build_that_cannot_be_says_why(policy, options, said):
    ended = policy("build", "src", *options, GIT_AUTHOR_NAME="")
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert not Path("policies.bundle").exists()


@pytest.mark.parametrize("epoch", ["soon", "-1e9", "99999999999999999"])
def test_a_source_date_that_is_none_is_refused(policy, epoch):
    ended = policy("build", "src", "--version", "1", "--author", "a", SOURCE_DATE_EPOCH=epoch)
    assert ended.code == 2
    assert "SOURCE_DATE_EPOCH" in ended.err


def test_policies_that_do_not_parse_are_not_built(policy):
    Path("src/main.cedar").write_text("permit(")
    ended = policy("build", "src", "--version", "1", "--author", "a")
    assert ended.code == 2
    assert "main.cedar" in ended.err
    assert not Path("policies.bundle").exists()
    assert policy("build", "nowhere", "--version", "1", "--author", "a").code == 2


def test_a_key_is_for_its_owner_and_is_never_overwritten(policy, key):
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes()
    ended = policy("keygen", "key")
    assert ended.code == 2
    assert "there is a key already" in ended.err
    assert key.read_bytes() == before
    assert "PRIVATE" not in Path(KEYS).read_text()
    key.chmod(0o644)
    ended = policy("sign", built(policy), "--key", key)
    assert ended.code == 2
    assert "chmod go-rwx" in ended.err


def test_a_second_key_is_added_to_those_that_are_trusted(policy, key):
    assert policy("keygen", "next", "--keys", KEYS).code == 0
    assert len(json.loads(Path(KEYS).read_text())["keys"]) == 2
    bundle = built(policy)
    assert policy("sign", bundle, "--key", key).code == 0
    assert policy("sign", bundle, "--key", "next/policy-key.pem").code == 0
    assert len(json.loads(policy("show", bundle, "--json").out)["releases"]) == 2
    assert policy("verify", bundle, "--keys", KEYS).code == 0


def test_a_signed_bundle_verifies_and_shows_what_it_is(policy, key):
    bundle = built(policy)
    assert policy("sign", bundle, "--key", key, "--expires", "30d", "--sequence", "7").code == 0
    verified = policy("verify", bundle, "--keys", KEYS)
    assert (verified.code, verified.err) == (0, "")
    assert "release 7 of policies 1" in verified.out
    said = json.loads(policy("verify", bundle, "--keys", KEYS, "--json").out)
    assert (said["verified"], said["sequence"], said["channel"]) == (True, 7, "stable")
    shown = policy("show", bundle).out
    assert "not verified here" in shown
    assert "permit all" in shown


def test_what_does_not_verify_ends_with_1(policy, key):
    bundle = built(policy)
    unsigned = policy("verify", bundle, "--keys", KEYS)
    assert (unsigned.code, unsigned.err) == (1, "")
    assert "is not signed" in unsigned.out
    assert policy("sign", bundle, "--key", key).code == 0
    assert policy("verify", bundle, "--keys", KEYS, "--name", "other").code == 1
    assert policy("verify", bundle, "--keys", KEYS, "--canary").code == 1
    bundle.write_bytes(bundle.read_bytes().replace(b"permit", b"forbid"))
    ended = policy("verify", bundle, "--keys", KEYS, "--json")
    assert ended.code == 1
    assert json.loads(ended.out)["verified"] is False
    bundle.write_bytes(b"\xff" * 100)
    assert policy("verify", bundle, "--keys", KEYS).code == 1


def test_what_cannot_be_checked_ends_with_2(policy, key):
    bundle = built(policy)
    for args in (
        ["verify", "missing.bundle", "--keys", KEYS],
        ["verify", bundle, "--keys", "missing.jwks"],
        ["verify", bundle, "--keys", bundle],
        ["verify", bundle, "--keys", "src"],
        ["show", "missing.bundle"],
        ["show", "src/main.cedar"],
        ["sign", bundle, "--key", "missing.pem"],
        ["sign", bundle, "--key", KEYS],
        ["sign", "src/main.cedar", "--key", key],
        ["pull", "src", "--keys", KEYS],
        ["status", "--state-dir", "src"],
    ):
        ended = policy(*args)
        assert ended.code == 2, args
        assert "Traceback" not in ended.err
        assert "unexpected" not in ended.err


@pytest.mark.parametrize("expires", ["yesterday", "2020-01-01", "0s", "-3d"])
def test_a_release_that_ends_before_it_begins_is_not_signed(policy, key, expires):
    ended = policy("sign", built(policy), "--key", key, "--expires", expires)
    assert ended.code == 2
    assert "--expires" in ended.err


def test_a_sequence_that_was_used_is_not_signed_again(policy, key):
    bundle = built(policy)
    assert policy("sign", bundle, "--key", key, "--sequence", "7").code == 0
    ended = policy("sign", bundle, "--key", key, "--sequence", "7")
    assert ended.code == 2
    assert "higher --sequence" in ended.err


@pytest.mark.parametrize("kind", ["folder", "http", "store"])
def test_a_bundle_is_pushed_pulled_rolled_back_and_tried_by_a_share(policy, key, shelf, kind):
    where = {"folder": "out", "http": shelf.url("/"), "store": "store:evidence.db"}[kind]
    Path("out").mkdir()
    first = built(policy, "1").rename("first.bundle")
    second = built(policy, "2", FORBID).rename("second.bundle")
    for bundle, sequence in ((first, 1), (second, 2)):
        assert policy("sign", bundle, "--key", key, "--sequence", sequence).code == 0
        ended = policy("push", bundle, where, "--keys", KEYS)
        assert ended.code == 0, ended.err
    assert policy("push", second, where).out.endswith("was there already\n")
    assert policy("pull", where, "--keys", KEYS, "-o", "pulled.bundle").code == 0
    assert Path("pulled.bundle").read_bytes() == second.read_bytes()

    back = policy("push", first, where)
    assert back.code == 2
    assert "sign this file again" in back.err.lower()
    assert policy("sign", first, "--key", key, "--sequence", 3).code == 0
    assert policy("push", first, where).code == 0

    assert policy("sign", second, "--key", key, "--sequence", 4, "--share", 10).code == 0
    assert "canary release 4" in policy("push", second, where).out
    assert policy("pull", where, "--keys", KEYS, "--canary", "-o", "canary.bundle").code == 0
    assert Path("canary.bundle").read_bytes() == second.read_bytes()
    assert "is withdrawn" in policy("withdraw", where).out
    assert "no canary" in policy("withdraw", where).out
    assert policy("pull", where, "--keys", KEYS, "--canary").code == 2


def test_what_does_not_verify_is_not_written(policy, key, shelf):
    bundle = built(policy)
    assert policy("push", bundle, shelf.url()).code == 0
    ended = policy("pull", shelf.url(), "--keys", KEYS, "-o", "got.bundle")
    assert ended.code == 2
    assert "is not signed" in ended.err
    assert not Path("got.bundle").exists()
    assert policy("pull", shelf.url(), "-o", "got.bundle").code == 2
    assert policy("pull", shelf.url(), "--unverified", "-o", "got.bundle").code == 0
    shelf.files["/policies.bundle"] = b"garbage"
    assert policy("pull", shelf.url(), "--unverified", "-o", "other.bundle").code == 2
    assert not Path("other.bundle").exists()


def test_what_does_not_verify_is_not_pushed_with_keys(policy, key, shelf):
    ended = policy("push", built(policy), shelf.url(), "--keys", KEYS)
    assert ended.code == 2
    assert shelf.files == {}


@pytest.mark.parametrize(
    "where", ["http://127.0.0.1:1/x.bundle", "https://", "postgresql://127.0.0.1:1/x", "store:", "no/x"]
)
def test_a_place_that_cannot_be_used_is_a_sentence(policy, key, where):
    bundle = built(policy)
    policy("sign", bundle, "--key", key)
    for args in (["push", bundle, where], ["pull", where, "--keys", KEYS], ["withdraw", where]):
        ended = policy(*args)
        assert "unexpected" not in ended.err
        assert ended.code == 2


def test_nothing_is_withdrawn_from_a_place_without_any_bundle(policy, key, shelf):
    Path("out").mkdir()
    for where in ("out", shelf.url("/"), "no/x"):
        ended = policy("withdraw", where)
        assert (ended.code, "holds no bundle at all" in ended.err) == (2, True), ended


@pytest.mark.parametrize("where", ["s3://bucket/x", "file:///tmp", "mysql://x/y"])
def test_a_scheme_that_is_not_known_is_no_folder(policy, key, where):
    bundle = built(policy)
    for args in (["push", bundle, where], ["pull", where, "--keys", KEYS], ["withdraw", where]):
        ended = policy(*args)
        assert ended.code == 2
        assert f"{where.partition('//')[0]}// is not supported; give a folder, a file, http(s)://" in ended.err


def test_a_push_with_keys_reports_the_release_that_was_verified(policy, key):
    assert policy("keygen", "theirs").code == 0
    Path("out").mkdir()
    bundle = built(policy)
    assert policy("sign", bundle, "--key", key, "--sequence", 5).code == 0
    assert policy("sign", bundle, "--key", "theirs/policy-key.pem", "--sequence", 9).code == 0
    assert "stable release 5\n" in policy("push", bundle, "out", "--keys", KEYS).out
    assert policy("sign", bundle, "--key", "theirs/policy-key.pem", "--sequence", 12, "--share", 5).code == 0
    assert "stable release 5\n" in policy("push", bundle, "out", "--keys", KEYS).out


def test_a_file_of_keys_that_is_made_is_named(policy):
    assert "made other.jwks, which was not there" in policy("keygen", "a", "--keys", "other.jwks").err
    assert policy("keygen", "b", "--keys", "other.jwks").err == ""


def test_the_two_files_of_a_key_are_not_confused(policy, key):
    bundle = built(policy)
    Path(KEYS).chmod(0o644)
    swapped = policy("sign", bundle, "--key", KEYS)
    assert "is no private key; name the file policy-key.pem" in swapped.err
    assert "chmod" not in swapped.err
    swapped = policy("verify", bundle, "--keys", key)
    assert (swapped.code, "is the secret key" in swapped.err, "policy-keys.jwks" in swapped.err) == (2, True, True)


def test_what_does_not_verify_names_the_next_step(policy, key):
    assert policy("keygen", "theirs").code == 0
    bundle = built(policy)
    assert policy("sign", bundle, "--key", "theirs/policy-key.pem").code == 0
    assert "policy keygen FOLDER --keys FILE" in policy("verify", bundle, "--keys", KEYS).out
    assert policy("sign", bundle, "--key", key).code == 0
    assert "with --name" in policy("verify", bundle, "--keys", KEYS, "--name", "other").out
    assert "Leave --canary out" in policy("verify", bundle, "--keys", KEYS, "--canary").out
    canary = built(policy)
    assert policy("sign", canary, "--key", key, "--share", 5).code == 0
    assert "Give --canary" in policy("verify", canary, "--keys", KEYS).out


def test_a_build_says_first_what_matters_first(policy):
    assert "does not exist" in policy("build", "nowhere", "--version", "1", GIT_AUTHOR_NAME="").err
    options = ["--version", "1", "--author", "a", "-o", "no/dir/z.bundle"]
    assert "-o no/dir/z.bundle: there is no folder no/dir" in policy("build", "src", *options).err
    Path("src/main.cedar").write_text("permit(")
    ended = policy("build", "src", "--version", "1", "--author", "a")
    assert ended.err.endswith("`exequatur policy check src` says more.\n")


def test_every_command_explains_itself(policy):
    for name in ("build", "keygen", "sign", "verify", "show", "push", "pull", "withdraw", "status"):
        ended = policy(name, "--help")
        assert ended.code == 0
        assert len(ended.out) > 150


def test_a_report_that_was_left_behind_is_not_shown(policy, tmp_path):
    from exequatur.release.report import report_of, write_report

    state = tmp_path / "state"
    state.mkdir()
    write_report(state, report_of("D" * 43, None, 0.0))
    gone = report_of("D" * 43, None, 0.0).model_copy(update={"pid": 2**22 + os.getpid()})
    write_report(state, gone)
    ended = policy("status", "--state-dir", state)
    assert (ended.code, ended.out.count("\n")) == (0, 1)
    assert "not signed" in ended.out
    (state / "in-force" / "x.json").write_text("{")
    ended = policy("status", "--state-dir", state)
    assert (ended.code, ended.out.count("\n")) == (0, 1)
    assert "x.json is not a worker's report" in ended.err


def test_a_release_that_has_ended_is_not_shown_as_if_it_decided(policy, tmp_path):
    from exequatur.release.report import report_of, write_report

    state = tmp_path / "state"
    state.mkdir()
    report = report_of("D" * 43, None, 0.0).model_copy(update={"name": "policies", "sequence": 5, "expires": 1.0})
    write_report(state, report)
    assert "ENDED, takes no work since 1970-01-01T00:00:01Z" in policy("status", "--state-dir", state).out
    write_report(state, report.model_copy(update={"expires": 4_000_000_000.0}))
    assert "until 2096-10-02" in policy("status", "--state-dir", state).out


def test_a_report_with_times_of_no_calendar_and_names_of_terminals_is_shown(policy, tmp_path):
    state = tmp_path / "state"
    (state / "in-force").mkdir(parents=True)
    host = "a\x1b[31m\n"
    for pid, at in enumerate((1e300, -1e300, 1e18), 1):
        body = {"host": host, "pid": pid, "since": at, "digest": "\x1b[2J", "expires": at, "name": "\x07"}
        (state / "in-force" / f"{host}-{pid}.json").write_text(json.dumps(body))
    ended = policy("status", "--state-dir", state)
    assert (ended.code, ended.err, ended.out.count("\n")) == (0, "", 3)
    assert "since unknown" in ended.out
    assert not set("\x1b\x07") & set(ended.out)
    assert policy("status", "--state-dir", state, "--json").code == 0
