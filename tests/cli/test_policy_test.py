"""``exequatur policy test``: what it says, and how it ends."""

import json
import shutil
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[2] / "policies"
POLICIES = """@id("bots")
permit(principal is Agent, action == Action::"pay", resource);

@id("limit") @reason("above 100 a person pays")
forbid(principal, action == Action::"pay", resource) when { context.args.amount > 100 };
"""
CASES = """defaults: {principal: 'Agent::"bot"', activity: pay}
cases:
  - {name: a small amount, args: {amount: 5}, expect: allow}
  - name: a large amount
    args: {amount: 500}
    expect: deny
    by: limit
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.cedar").write_text(POLICIES)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "pay.yaml").write_text(CASES)
    return tmp_path


def test_the_reference_policies_pass_and_are_covered(process):
    ended = process("policy", "test", str(REFERENCE), "--require-coverage")
    assert (ended.code, ended.err) == (0, "")
    assert "refunds.yaml: " in ended.out
    assert ended.out.splitlines()[-1].endswith("policies covered")


def test_all_cases_that_pass_are_0(exequatur, folder):
    ended = exequatur("policy", "test", str(folder))
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"{folder}/tests/pay.yaml: 2 passed\n\n2 cases: 2 passed\n"


def test_the_folder_is_policies_if_none_is_named(exequatur, folder, monkeypatch):
    shutil.copytree(folder, folder / "policies")
    monkeypatch.chdir(folder)
    assert exequatur("policy", "test").out.startswith("policies/tests/pay.yaml: 2 passed\n")


def test_a_case_that_fails_is_1_and_says_why_and_where(exequatur, folder):
    (folder / "tests" / "pay.yaml").write_text(CASES.replace("amount: 5}", "amount: 101}"))
    ended = exequatur("policy", "test", str(folder))
    assert (ended.code, ended.err) == (1, "")
    assert ended.out == (
        f"{folder}/tests/pay.yaml: 1 passed, 1 failed\n"
        f"  FAILED {folder}/tests/pay.yaml:3:5: a small amount\n"
        "    expected allow, but limit (above 100 a person pays) forbids it\n"
        f"    limit is at {folder}/main.cedar:4:1\n"
        "\n2 cases: 1 passed, 1 failed\n"
    )


def test_a_case_that_cannot_be_asked_is_2_unless_another_one_fails(exequatur, folder):
    broken = CASES.replace("by: limit", "by: limits")
    (folder / "tests" / "pay.yaml").write_text(broken)
    ended = exequatur("policy", "test", str(folder))
    assert (ended.code, ended.err) == (2, "Error: 1 case could not be asked; correct them and run again\n")
    assert f"ERROR {folder}/tests/pay.yaml:7:5: a large amount\n" in ended.out
    assert "by: there is no policy limits. Did you mean limit?" in ended.out
    (folder / "tests" / "pay.yaml").write_text(broken.replace("allow", "deny"))
    ended = exequatur("policy", "test", str(folder))
    assert (ended.code, ended.err) == (1, "")
    assert "2 cases: 1 failed, 1 could not be asked" in ended.out


def test_k_chooses_by_the_name_of_a_case_or_of_its_file(exequatur, folder):
    assert "1 case: 1 passed" in exequatur("policy", "test", str(folder), "-k", "LARGE").out
    assert "2 cases: 2 passed" in exequatur("policy", "test", str(folder), "-k", "pay.y").out
    ended = exequatur("policy", "test", str(folder), "-k", "huge")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "Error: -k huge: none of 2 cases has this in its name or its file's name\n"


def test_coverage_is_a_table(exequatur, folder):
    ended = exequatur("policy", "test", str(folder), "--coverage", COLUMNS="120")
    assert ended.code == 0
    rows = [line.split(maxsplit=5) for line in ended.out.splitlines()]
    assert ["bots", "permit", "1", "0", "1", "no case in which it stands aside"] in rows
    assert ["limit", "forbid", "1", "1"] in rows
    assert ended.out.endswith("2 cases: 2 passed; 1 of 2 policies covered\n")


def test_a_policy_that_is_not_covered_is_1_where_coverage_is_required(exequatur, folder):
    ended = exequatur("policy", "test", str(folder), "--require-coverage")
    assert (ended.code, ended.err) == (1, "")
    assert f"UNCOVERED {folder}/main.cedar:1:1: bots: no case in which it stands aside\n" in ended.out
    stray = "  - {name: a person, principal: 'User::\"kim\"', args: {amount: 1}, expect: deny, by: []}\n"
    (folder / "tests" / "pay.yaml").write_text(CASES + stray)
    assert exequatur("policy", "test", str(folder), "--require-coverage").code == 0


def test_json_says_everything_that_a_machine_asks(exequatur, folder):
    (folder / "tests" / "pay.yaml").write_text(CASES.replace("amount: 5}", "amount: 101}"))
    ended = exequatur("policy", "test", str(folder), "--json")
    assert ended.code == 1
    report = ended.report
    assert (report["passed"], report["failed"], report["errors"]) == (1, 1, 0)
    assert report["cases"][0] == {
        "name": "a small amount",
        "where": f"{folder}/tests/pay.yaml:3:5",
        "file": f"{folder}/tests/pay.yaml",
        "line": 3,
        "column": 5,
        "activity": "pay",
        "outcome": "failed",
        "expected": "allow",
        "decision": "deny",
        "policies": ["limit"],
        "errors": [],
        "problem": "expected allow, but limit (above 100 a person pays) forbids it",
    }
    assert report["coverage"][1]["missing"] == "no case in which it stands aside"


def test_files_of_json_are_cases_too(exequatur, folder):
    (folder / "tests" / "more.json").write_text(
        json.dumps(
            {
                "cases": [
                    {
                        "name": "x",
                        "principal": 'User::"kim"',
                        "activity": "pay",
                        "args": {"amount": 1},
                        "expect": "deny",
                    }
                ]
            }
        )
    )
    ended = exequatur("policy", "test", str(folder))
    assert (ended.code, ended.out.splitlines()[-1]) == (0, "3 cases: 3 passed")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tests/pay.yaml", "cases:\n  - {nam: x}", "tests/pay.yaml:2:6: a case has no nam. Did you mean name?"),
        ("tests/pay.yaml", "cases: [", "tests/pay.yaml:1:9: this is not YAML"),
        ("tests/pay.yaml", "\xff", "tests/pay.yaml:1: not valid UTF-8"),
        ("main.cedar", "permit(", "main.cedar:1:8: Cedar cannot parse this policy"),
        ("entities.json", "{", "entities.json is not JSON"),
    ],
)
def test_what_cannot_be_read_is_2_and_names_the_place(exequatur, folder, name, content, message):
    (folder / name).write_bytes(content.encode("latin-1"))
    ended = exequatur("policy", "test", str(folder))
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert ended.err.count("\n") == 1


def test_a_folder_without_cases_or_policies_is_2(exequatur, folder):
    shutil.rmtree(folder / "tests")
    ended = exequatur("policy", "test", str(folder))
    assert (ended.code, ended.out) == (2, "")
    assert "There are no policy tests in" in ended.err
    assert "first.yaml" in ended.err
    ended = exequatur("policy", "test", str(folder / "nowhere"))
    assert (ended.code, ended.out) == (2, "")
    assert "nowhere does not exist" in ended.err


def test_nothing_of_a_case_acts_on_a_terminal(exequatur, folder):
    (folder / "main.cedar").write_text(POLICIES.replace("above 100", "\\u{1b}[31m above"))
    (folder / "tests" / "pay.yaml").write_text(CASES.replace("amount: 5}", "amount: 101}"))
    ended = exequatur("policy", "test", str(folder))
    assert ended.code == 1
    assert "\x1b" not in ended.out
    assert r"\x1b[31m above" in ended.out
