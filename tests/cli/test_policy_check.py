"""``exequatur policy check`` and ``fmt`` as a user runs them: what they print, how they end, what they leave alone."""

import json
import stat
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from exequatur.cli.main import commands
from tests.cli.conftest import ROOT, Ended

Run = Callable[..., Ended]

SCHEMA = """entity User;
entity Workflow;
action refund appliesTo {
  principal: [User], resource: [Workflow], context: { args: { amount: Long }, now: datetime }
};
"""
SOUND = """@id("small")
permit (
  principal,
  action == Action::"refund",
  resource
)
when { context.args.amount < 500 };
"""
MISSPELT = SOUND.replace("amount", "amuont")


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder ``policies`` in the current one."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "schema.cedarschema").write_text(SCHEMA)
    (folder / "refunds.cedar").write_text(SOUND)
    return folder


def test_the_reference_policies_are_clean_even_strictly(exequatur: Run) -> None:
    ended = exequatur("policy", "check", str(ROOT / "policies"), "--strict")
    assert (ended.code, ended.err) == (0, "")
    assert "nothing found" in ended.out


def test_an_error_is_shown_with_its_line_a_mark_and_the_fix(policies: Path, exequatur: Run) -> None:
    (policies / "refunds.cedar").write_text(MISSPELT)
    ended = exequatur("policy", "check")
    assert ended.code == 1
    assert ended.err == ""
    assert ended.out.splitlines()[:4] == [
        'policies/refunds.cedar:7:21: error: Action::"refund" has no argument amuont [unknown-argument]',
        "  when { context.args.amuont < 500 };",
        "                      ^^^^^^",
        "  fix: did you mean amount?",
    ]
    assert ended.out.splitlines()[-1] == "1 policy in 2 files: 1 error, 0 warnings"


def test_warnings_fail_only_when_asked_to(policies: Path, exequatur: Run) -> None:
    (policies / "refunds.cedar").write_text(SOUND.replace('@id("small")\n', ""))
    assert exequatur("policy", "check").code == 0
    assert "[missing-id]" in exequatur("policy", "check").out
    assert exequatur("policy", "check", "--strict").code == 1


def test_json_has_the_documented_form(policies: Path, exequatur: Run) -> None:
    (policies / "refunds.cedar").write_text(MISSPELT)
    for options in (["--json"], ["--format", "json"]):
        ended = exequatur("policy", "check", *options)
        assert ended.code == 1
        assert ended.report == {
            "version": 1,
            "errors": 1,
            "warnings": 0,
            "policies": 1,
            "findings": [
                {
                    "file": "policies/refunds.cedar",
                    "line": 7,
                    "column": 21,
                    "endColumn": 27,
                    "severity": "error",
                    "rule": "unknown-argument",
                    "policy": "small",
                    "message": 'Action::"refund" has no argument amuont',
                    "fix": "did you mean amount?",
                }
            ],
        }


def test_github_gets_annotations_that_no_name_can_break(policies: Path, exequatur: Run) -> None:
    (policies / "a,b:c%.cedar").write_text("permit(principal")
    ended = exequatur("policy", "check", "--format", "github")
    assert ended.code == 1
    assert ended.out.startswith("::error file=policies/a%2Cb%3Ac%25.cedar,line=1,col=17,endColumn=18,title=syntax::")


def test_the_rules_are_listed(exequatur: Run) -> None:
    assert "unrestricted-permit (error, may be allowed)" in exequatur("policy", "check", "--rules").out
    rules = exequatur("policy", "check", "--rules", "--json").report["rules"]
    assert {"name", "severity", "about", "mayBeAllowed"} == set(rules[0])


def test_a_folder_that_cannot_be_checked_ends_with_2_and_one_line(policies: Path, exequatur: Run) -> None:
    for path in ("nowhere", "policies/refunds.cedar"):
        ended = exequatur("policy", "check", path)
        assert ended.code == 2
        assert ended.out == ""
        assert len(ended.err.splitlines()) == 1


def test_hostile_files_are_findings_and_no_escape_reaches_the_terminal(policies: Path, exequatur: Run) -> None:
    (policies / "a.cedar").write_bytes(b"\xff\xfe")
    (policies / "b.cedar").write_bytes(b'permit(principal, action, resource) when { "\x1b[31m" < };\0')
    (policies / "c.cedar").write_text("permit(principal,action,resource) when { " + "(" * 9000)
    (policies / "d\x1b[31m.cedar").write_text("x" * 100_000)
    ended = exequatur("policy", "check")
    assert ended.code == 1
    assert "\x1b" not in ended.out
    assert max(map(len, ended.out.splitlines())) < 500
    for name in ("a.cedar", "b.cedar", "c.cedar", "d"):
        assert f"policies/{name}" in ended.out


def test_the_command_in_a_process_of_its_own_is_clean_about_the_reference(process: Run) -> None:
    ended = process("policy", "check", str(ROOT / "policies"), "--json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.report["findings"] == []


def test_a_file_that_cannot_be_read_is_not_taken_for_no_policy(policies: Path, exequatur: Run) -> None:
    (policies / "refunds.cedar").write_bytes(b"\xff")
    found = exequatur("policy", "check", "--json").report["findings"]
    assert "unreadable" in {each["rule"] for each in found}
    assert "no-policies" not in {each["rule"] for each in found}


def test_a_schema_that_lacks_what_the_fragment_declares_is_outdated(policies: Path, exequatur: Run) -> None:
    (policies / "model.cedarschema").write_text("// ours\nentity   User ;\n")
    assert exequatur("policy", "check", "--strict").code == 0
    (policies / "model.cedarschema").write_text("entity User { region?: String };\nentity Tenant;\n")
    found = exequatur("policy", "check", "--json").report["findings"]
    assert [(each["rule"], each["line"], each["message"]) for each in found] == [
        ("schema-outdated", 1, "User is otherwise in the schema"),
        ("schema-outdated", 2, "Tenant is not in the schema"),
    ]
    assert "exequatur policy schema --from MODULE" in found[0]["fix"]


@pytest.mark.parametrize("name", ["a.cdar", "a.ceder", "entities.yaml", "test/a.yaml", "tests/a.yaml.txt"])
def test_a_file_with_almost_the_right_name_is_said_to_be_ignored(policies: Path, exequatur: Run, name: str) -> None:
    (policies / name).parent.mkdir(exist_ok=True)
    (policies / name).write_text("")
    [found] = exequatur("policy", "check", "--json").report["findings"]
    assert (found["rule"], found["fix"] != "") == ("file-ignored", True)
    assert found["file"] in (f"policies/{name}", "policies/test")


@pytest.mark.parametrize("name", ["README.md", "tests/first.yaml", "tests/notes.txt", "test/helper.py", "cedar.txt"])
def test_files_of_other_kinds_are_left_alone(policies: Path, exequatur: Run, name: str) -> None:
    (policies / name).parent.mkdir(exist_ok=True)
    (policies / name).write_text("")
    assert exequatur("policy", "check", "--json").report["findings"] == []


# fmt


def test_fmt_formats_in_place_and_then_has_nothing_to_do(policies: Path, exequatur: Run) -> None:
    file = policies / "refunds.cedar"
    file.write_text("// why\n" + SOUND.replace("\n", " "))
    file.chmod(0o640)
    ended = exequatur("policy", "fmt")
    assert (ended.code, ended.out) == (0, "formatted: policies/refunds.cedar\n")
    assert file.read_text() == "// why\n" + SOUND
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert exequatur("policy", "fmt").out == "1 file formatted already\n"
    assert sorted(each.name for each in policies.iterdir()) == ["refunds.cedar", "schema.cedarschema"]


def test_fmt_check_lists_what_is_not_formatted_and_writes_nothing(policies: Path, exequatur: Run) -> None:
    text = SOUND.replace("\n", " ")
    (policies / "refunds.cedar").write_text(text)
    ended = exequatur("policy", "fmt", "--check", "policies/refunds.cedar", "policies")
    assert (ended.code, ended.out) == (1, "not formatted: policies/refunds.cedar\n")
    assert (policies / "refunds.cedar").read_text() == text


def test_fmt_leaves_what_does_not_parse_alone_and_formats_the_rest(policies: Path, exequatur: Run) -> None:
    (policies / "refunds.cedar").write_text(SOUND.replace("\n", " "))
    (policies / "broken.cedar").write_text("permit(principal action);")
    ended = exequatur("policy", "fmt")
    assert ended.code == 2
    assert "policies/broken.cedar:1:18: unexpected token `action`" in ended.err
    assert (policies / "broken.cedar").read_text() == "permit(principal action);"
    assert (policies / "refunds.cedar").read_text() == SOUND


def test_fmt_follows_a_link_and_keeps_it(policies: Path, exequatur: Run) -> None:
    real = policies.parent / "real.cedar"
    real.write_text(SOUND.replace("\n", " "))
    (policies / "refunds.cedar").unlink()
    (policies / "refunds.cedar").symlink_to(real)
    assert exequatur("policy", "fmt").code == 0
    assert (policies / "refunds.cedar").is_symlink()
    assert real.read_text() == SOUND


def test_fmt_reads_standard_input(policies: Path) -> None:
    def run(data: bytes, *options: str) -> Any:
        return CliRunner().invoke(commands, ["policy", "fmt", "--stdin", *options], input=BytesIO(data))

    assert run(SOUND.replace("\n", " ").encode()).stdout == SOUND
    assert run(SOUND.encode(), "--check").exit_code == 0
    assert run(SOUND.replace("\n", " ").encode(), "--check").exit_code == 1
    for data in (b"permit(", b"\xff"):
        ended = run(data)
        assert (ended.exit_code, ended.stdout) == (2, "")
        assert "<stdin>:1" in ended.stderr
    assert run(b"", "policies").exit_code == 2


def test_fmt_refuses_what_is_no_policy_file(policies: Path, exequatur: Run) -> None:
    (policies / "latin.cedar").write_bytes(b"// caf\xe9")
    (policies / "empty").mkdir()
    for path in ("nowhere", "policies/schema.cedarschema", "policies/latin.cedar", "policies/empty"):
        ended = exequatur("policy", "fmt", path)
        assert (ended.code, ended.out) == (2, "")
        assert path in ended.err
    assert (policies / "schema.cedarschema").read_text() == SCHEMA


def test_the_line_width_is_the_users(policies: Path, exequatur: Run) -> None:
    (policies / "refunds.cedar").write_text(SOUND.replace("< 500", "< 500 && context.args.amount > 5"))
    assert exequatur("policy", "fmt", "--line-width", "100").out == "1 file formatted already\n"
    assert exequatur("policy", "fmt", "--line-width", "40").out.startswith("formatted")
    assert exequatur("policy", "fmt", "--line-width", "7").code == 2


def test_json_findings_are_json_whatever_they_quote(policies: Path, exequatur: Run) -> None:
    (policies / "refunds.cedar").write_text('permit(principal, action, resource) when { "\\q\u202e" == "" };')
    json.loads(exequatur("policy", "check", "--json").out)
