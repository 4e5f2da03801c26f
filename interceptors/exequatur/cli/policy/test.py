"""``exequatur policy test``: whether the policies answer as their cases expect."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exequatur.audit.wording import count, shown
from exequatur.errors import PolicyError

if TYPE_CHECKING:  # at run time when the command runs, so that --help is quick
    from exequatur.authoring.cases.cases import Case
    from exequatur.authoring.cases.coverage import PolicyCoverage
    from exequatur.authoring.cases.results import CaseResult, Results
    from exequatur.policy.bundle import PolicyBundle


@click.command()
@click.argument(
    "folder", metavar="[FOLDER]", default="policies", type=click.Path(file_okay=False, path_type=Path), required=False
)
@click.option("-k", "text", help="Only the cases with this text in their name or in that of their file.")
@click.option("--coverage", "with_coverage", is_flag=True, help="A table: what the cases show of each policy.")
@click.option("--require-coverage", is_flag=True, help="Fail unless the cases show both directions of every policy.")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output, with the coverage.")
def test(folder: Path, text: str | None, with_coverage: bool, require_coverage: bool, as_json: bool) -> None:
    """Run the policy tests in FOLDER/tests (*.yaml, *.json) against the policies in FOLDER.

    \b
    cases:
      - name: no refund above the limit
        principal: {uid: 'Agent::"ops-bot"', parents: ['Role::"operations"']}
        activity: refund_order
        args: {refund: {order_id: o-1, amount: 500.01, reason: late}}
        expect: deny
        by: refunds-limit

    Also of a case: context, resource, entities, now (2026-01-05T12:00:00Z unless it says another moment), reason and
    error (what a denial says), each (rows that become one case each). What stands under defaults: applies to every
    case of its file. by: names exactly the policies that decide; [] says that none permits.

    A policy is covered if one case shows that it decides, and another one of the same activity that it stands aside.

    Exit codes: 0 all passed; 1 a case failed, or with --require-coverage a policy is not covered; 2 the policies or a
    case could not be read or asked.
    """
    from exequatur.authoring.cases.cases import case_files, read_cases
    from exequatur.authoring.cases.coverage import coverage
    from exequatur.authoring.cases.results import run_cases
    from exequatur.policy.bundle import PolicyBundle

    bundle = PolicyBundle.from_folder(folder)
    cases = _chosen([case for path in case_files(folder) for case in read_cases(path)], text)
    results = run_cases(bundle, cases)
    covered = coverage(bundle, results) if with_coverage or require_coverage or as_json else ()
    if as_json:
        click.echo(json.dumps(_document(bundle, results, covered), indent=2, ensure_ascii=False))
    else:
        _print_cases(bundle, results)
        if with_coverage:
            _print_coverage(covered)
        elif require_coverage:
            _print_uncovered(covered)
        _print_summary(results, covered)
    uncovered = require_coverage and not all(each.covered for each in covered)
    if results.of("failed"):
        sys.exit(1)
    if results.of("error"):
        raise PolicyError(f"{count(len(results.of('error')), 'case')} could not be asked; correct them and run again")
    if uncovered:
        sys.exit(1)


def _chosen(cases: list[Case], text: str | None) -> list[Case]:
    if text is None:
        return cases
    wanted = text.casefold()
    chosen = [case for case in cases if wanted in case.name.casefold() or wanted in Path(case.file).name.casefold()]
    if not chosen:
        raise PolicyError(f"-k {text}: none of {count(len(cases), 'case')} has this in its name or its file's name")
    return chosen


def _print_cases(bundle: PolicyBundle, results: Results) -> None:
    files: dict[str, list[CaseResult]] = {}
    for result in results.cases:
        files.setdefault(result.case.file, []).append(result)
    for file, own in files.items():
        click.echo(f"{shown(file)}: {_tally(own)}")
        for result in own:
            if result.outcome != "passed":
                word = click.style("FAILED" if result.outcome == "failed" else "ERROR", fg="red", bold=True)
                click.echo(f"  {word} {shown(result.where)}: {shown(result.case.name)}")
                for sentence in result.sentences(bundle):
                    click.echo(f"    {shown(sentence)}")


def _print_coverage(covered: tuple[PolicyCoverage, ...]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Policy", no_wrap=True, min_width=max((len(shown(each.id)) for each in covered), default=0))
    table.add_column("Effect")
    for name in ("Decides", "Stands aside", "Overruled"):
        table.add_column(name, justify="right")
    table.add_column("Missing", overflow="fold")
    for each in covered:
        aside = "never" if each.unrestricted else str(each.aside)
        overruled = str(each.overruled) if each.effect == "permit" else ""
        missing = Text(each.missing or "", "red")
        table.add_row(Text(shown(each.id)), each.effect, str(each.decided), aside, overruled, missing)
    click.echo()
    Console(file=sys.stdout).print(table)


def _print_uncovered(covered: tuple[PolicyCoverage, ...]) -> None:
    for each in covered:
        if each.missing:
            word = click.style("UNCOVERED", fg="red", bold=True)
            click.echo(f"  {word} {shown(each.where)}: {shown(each.id)}: {each.missing}")


def _print_summary(results: Results, covered: tuple[PolicyCoverage, ...]) -> None:
    policies = ""
    if covered:
        policies = f"; {sum(each.covered for each in covered)} of {count(len(covered), 'policy', 'policies')} covered"
    click.echo(f"\n{count(len(results.cases), 'case')}: {_tally(results.cases)}{policies}")


def _tally(results: list[CaseResult] | tuple[CaseResult, ...]) -> str:
    numbers = {word: sum(each.outcome == word for each in results) for word in ("passed", "failed", "error")}
    words = {"passed": "passed", "failed": "failed", "error": "could not be asked"}
    return ", ".join(f"{number} {words[word]}" for word, number in numbers.items() if number)


def _document(bundle: PolicyBundle, results: Results, covered: tuple[PolicyCoverage, ...]) -> dict[str, Any]:
    return {
        "bundle": bundle.digest,
        "passed": len(results.of("passed")),
        "failed": len(results.of("failed")),
        "errors": len(results.of("error")),
        "cases": [_case(each) for each in results.cases],
        "coverage": [
            {
                "id": each.id,
                "effect": each.effect,
                "where": each.where,
                "decided": each.decided,
                "aside": each.aside,
                "overruled": each.overruled,
                "covered": each.covered,
                "missing": each.missing,
            }
            for each in covered
        ],
    }


def _case(result: CaseResult) -> dict[str, Any]:
    case, verdict = result.case, result.verdict
    return {
        "name": case.name,
        "where": result.where,
        "file": case.file,
        "line": case.place.line,
        "column": case.place.column,
        "activity": case.activity,
        "outcome": result.outcome,
        "expected": "allow" if case.allow else "deny",
        "decision": None if verdict is None else "allow" if verdict.allowed else "deny",
        "policies": [] if verdict is None else [policy.id for policy in verdict.policies],
        "errors": [] if verdict is None else list(verdict.errors),
        "problem": result.problem,
    }


COMMANDS = (test,)
