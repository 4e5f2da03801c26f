"""Policy tests under pytest: what is collected, what a failure says, and what is left alone."""

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from xml.etree import ElementTree

import pytest

# Imported before pytester takes its snapshot of the modules: Cedar's native one cannot be loaded a second time.
import exequatur.authoring.cases.results
import exequatur.testing.fixtures
import exequatur.testing.pytest_plugin

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
#: An installed package brings the plugin by its entry point; from a bare checkout it has to be named.
PLUGIN = (
    ()
    if any(each.name == "exequatur" for each in entry_points(group="pytest11"))
    else ("-p", "exequatur.testing.pytest_plugin")
)
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


class Project:
    """A project with a policy folder, and pytest run in it."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        self.path = pytester.path
        self.write("policies/main.cedar", POLICIES)
        self.write("policies/tests/pay.yaml", CASES)

    def write(self, name: str, content: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def pytest(self, *args: str) -> pytest.RunResult:
        # What pytest-asyncio wants to be told has nothing to do with it.
        return self._pytester.runpytest_inprocess(*PLUGIN, "-o", "asyncio_default_fixture_loop_scope=function", *args)


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    return Project(pytester)


def test_every_case_is_a_test_with_its_name(project):
    result = project.pytest("-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["policies/tests/pay.yaml::a small amount PASSED*", "policies/tests/pay.yaml::a large amount PASSED*"]
    )


def test_a_failure_says_why_and_where_and_nothing_of_this_program(project):
    project.write("policies/tests/pay.yaml", CASES.replace("amount: 5}", "amount: 101}"))
    result = project.pytest()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*policy test: a small amount*",
            "policies/tests/pay.yaml:3:5: a small amount",
            "    expected allow, but limit (above 100 a person pays) forbids it",
            "    limit is at policies/main.cedar:4:1",
        ],
        consecutive=True,
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_a_case_that_cannot_be_asked_fails(project):
    project.write("policies/tests/pay.yaml", CASES.replace("by: limit", "by: limits"))
    result = project.pytest()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["policies/tests/pay.yaml:7:5: a large amount", "    by: there is no policy limits. Did you mean limit?"]
    )


def test_cases_are_chosen_like_other_tests(project):
    project.pytest("-k", "large").assert_outcomes(passed=1, deselected=1)
    project.pytest("policies/tests/pay.yaml::a small amount").assert_outcomes(passed=1)
    listed = project.pytest("--collect-only", "-q")
    listed.stdout.fnmatch_lines(["policies/tests/pay.yaml::a small amount", "policies/tests/pay.yaml::a large amount"])


def test_what_failed_is_run_again(project):
    project.write("policies/tests/pay.yaml", CASES.replace("amount: 5}", "amount: 101}"))
    project.pytest().assert_outcomes(passed=1, failed=1)
    project.write("policies/tests/pay.yaml", CASES)
    project.pytest("--last-failed").assert_outcomes(passed=1)


def test_the_policies_in_force_are_those_on_disk_at_each_run(project):
    project.pytest().assert_outcomes(passed=2)
    project.write("policies/main.cedar", POLICIES.replace("> 100", "> 1"))
    project.pytest().assert_outcomes(passed=1, failed=1)


def test_other_files_are_left_alone(project):
    for name in (
        "tests/data.yaml",  # no policies beside the folder
        "tests/test_python.json",
        "policies/other.yaml",
        "policies/tests/deeper/data.yaml",
        "policies/tests/.hidden.yaml",
        "policies/tests/notes.md",
        "policies/examples/data.json",
    ):
        project.write(name, "{")
    project.write("tests/test_python.py", "def test_python(): pass")
    project.write("policies/tests/test_more.py", "def test_more(): pass")
    project.pytest().assert_outcomes(passed=4)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("policies/tests/other.yaml", "cases:\n  - {nam: x}", "policies/tests/other.yaml:2:6: a case has no nam*name?"),
        ("policies/tests/other.json", "{", "policies/tests/other.json:1:2: this is not JSON*"),
        ("policies/tests/other.yml", "", "policies/tests/other.yml:1:1: there is nothing in this file*"),
    ],
)
def test_a_broken_file_is_an_error_of_its_own(project, name, content, message):
    project.write(name, content)
    result = project.pytest("--continue-on-collection-errors")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines([f"*ERROR collecting {name}*", message], consecutive=True)
    result.stdout.no_fnmatch_line("*Traceback*")


def test_policies_that_do_not_load_are_an_error_with_their_place(project):
    project.write("policies/main.cedar", POLICIES + "permit(")
    project.write("test_python.py", "def test_python(): pass")
    result = project.pytest("--continue-on-collection-errors")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["policies/main.cedar:6:8: Cedar cannot parse this policy*"])


def test_without_a_reader_of_yaml_the_next_step_is_said_and_json_is_read(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)  # as if it were not installed
    project.write("policies/tests/more.json", '{"cases": [{"name": "no field"}]}')
    result = project.pytest()
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["policies/tests/more.json:1:12: this case has no principal*"])
    result.stdout.fnmatch_lines(["policies/tests/pay.yaml: *; run: pip install 'exequatur?testing?'"])


def test_a_machine_reads_the_outcome_as_junit(project):
    project.write("policies/tests/pay.yaml", CASES.replace("amount: 5}", "amount: 101}"))
    project.pytest("--junitxml=report.xml")
    first, second = ElementTree.parse(project.path / "report.xml").iter("testcase")
    assert (first.get("name"), second.get("name")) == ("a small amount", "a large amount")
    failure = first.find("failure")
    assert failure is not None
    assert "limit (above 100 a person pays) forbids it" in (failure.text or "")


def test_the_fixtures_are_there(project):
    project.write("test_it.py", "def test_it(policy_files): assert policy_files.path.name == 'exequatur-policies'")
    project.pytest("test_it.py").assert_outcomes(passed=1)


def test_the_reference_policies_pass_in_a_process_of_their_own():
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *PLUGIN, "policies/tests"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " passed" in ended.stdout


def test_the_package_brings_the_plugin_and_the_project_runs_its_own_policy_tests():
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text())
    plugin = configured["project"]["entry-points"]["pytest11"]["exequatur"]
    assert plugin == exequatur.testing.pytest_plugin.__name__
    assert "policies/tests" in configured["tool"]["pytest"]["testpaths"]
