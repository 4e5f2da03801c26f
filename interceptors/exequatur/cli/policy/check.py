"""``exequatur policy check`` and ``fmt``: what is wrong with policies, and how they are written."""

from __future__ import annotations

import json
import stat
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from exequatur.audit.wording import count, shown
from exequatur.errors import PolicyError

if TYPE_CHECKING:  # at run time when a command runs, so that --help is quick
    from collections.abc import Mapping, Sequence

    from exequatur.authoring.checks.check import Checked
    from exequatur.authoring.checks.findings import Finding
    from exequatur.authoring.checks.texts import Text

#: The form of ``--json``; a change of it that breaks a reader is another number.
FORMAT = 1
#: What a terminal shows of a long line, around the place.
_WINDOW = 160
_COLOURS = {"error": "red", "warning": "yellow"}

Form = Literal["text", "json", "github"]


@click.command()
@click.argument("folder", metavar="[FOLDER]", default="policies", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output; the same as --format json.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="github: annotations of a workflow run.",
)
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@click.option("--rules", is_flag=True, help="List the rules and end.")
def check(folder: Path, as_json: bool, form: Form, strict: bool, rules: bool) -> None:
    """Look for everything that is wrong with the policies in FOLDER.

    What a worker would refuse: files that cannot be parsed, policies that do not fit the schema, entities that do not
    conform to it. And what is hardly meant: a permit that nothing restricts, a policy that never applies or that
    another one makes superfluous, an approval that nobody can give, an activity that nobody may run.

    A comment above a policy, or in it, exempts it from a rule by the rule's name:

    \b
      // exequatur: allow unrestricted-permit
      @id("everything-in-development")
      permit (principal, action, resource);

    Exit codes: 0 nothing found but warnings; 1 errors, or with --strict warnings; 2 the folder could not be read.
    """
    from exequatur.authoring.checks.check import check_folder

    form = "json" if as_json else form
    if rules:
        _print_rules(form)
        return
    checked = check_folder(folder)
    if form == "json":
        click.echo(json.dumps(document(checked), indent=2, ensure_ascii=False))
    elif form == "github":
        for each in checked.findings:
            click.echo(_annotation(each))
    else:
        for each in checked.findings:
            _print_finding(each, checked.texts)
        _print_summary(checked)
    if checked.errors or (strict and checked.warnings):
        sys.exit(1)


@click.command()
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--check", "only_check", is_flag=True, help="Write nothing; list the files that are not formatted.")
@click.option("--stdin", "from_stdin", is_flag=True, help="Format standard input to standard output.")
@click.option(
    "--line-width",
    type=click.IntRange(40, 400),
    default=100,
    show_default=True,
    help="Characters that a line may have.",
)
def fmt(paths: tuple[Path, ...], only_check: bool, from_stdin: bool, line_width: int) -> None:
    """Format policies in place.

    PATH is a file, or a folder of *.cedar files; policies if none is given. Comments stay, the meaning stays (the
    parsed policies are compared), and a file is replaced whole or not at all. A file that cannot be parsed is left
    alone and reported. Schemas are not formatted: Cedar's formatter has no form for them that keeps comments.

    Exit codes: 0 all formatted; 1 with --check, a file is not; 2 a file could not be formatted.
    """
    if from_stdin:
        if paths:
            raise click.UsageError("--stdin takes no PATH.")
        _format_stdin(only_check, line_width)
        return
    from exequatur.authoring.checks.format import format_text
    from exequatur.files import write_whole

    broken: list[Finding] = []
    different = 0
    files = _files(paths or (Path("policies"),))
    for path in files:
        text = _read(path)
        formatted = format_text(str(path), text, line_width)
        broken += formatted.findings
        if formatted.text is None or formatted.text == text:
            continue
        different += 1
        if not only_check:
            target = path.resolve()
            write_whole(target, formatted.text.encode(), stat.S_IMODE(target.stat().st_mode))
        click.echo(f"{'not formatted' if only_check else 'formatted'}: {shown(str(path))}")
    if broken:
        _refuse(broken)
    if not different:
        click.echo(f"{count(len(files), 'file')} formatted already")
    elif only_check:
        sys.exit(1)


def document(checked: Checked) -> dict[str, Any]:
    """Return a check as JSON has it."""
    return {
        "version": FORMAT,
        "errors": checked.errors,
        "warnings": checked.warnings,
        "policies": checked.policies,
        "findings": [
            {
                "file": each.file,
                "line": each.line,
                "column": each.column,
                "endColumn": each.end_column,
                "severity": each.severity,
                "rule": each.rule,
                "policy": each.policy,
                "message": each.message,
                "fix": each.fix,
            }
            for each in checked.findings
        ],
    }


def _print_rules(form: Form) -> None:
    from exequatur.authoring.checks.findings import RULES

    if form == "json":
        known = [
            {"name": each.name, "severity": each.severity, "about": each.about, "mayBeAllowed": each.may_be_allowed}
            for each in RULES.values()
        ]
        click.echo(json.dumps({"version": FORMAT, "rules": known}, indent=2, ensure_ascii=False))
        return
    for each in RULES.values():
        click.echo(f"{each.name} ({each.severity}{', may be allowed' if each.may_be_allowed else ''})")
        click.echo(textwrap.fill(each.about, 100, initial_indent="  ", subsequent_indent="  "))


def _print_finding(each: Finding, texts: Mapping[str, Text]) -> None:
    severity = click.style(each.severity, fg=_COLOURS[each.severity], bold=True)
    click.echo(f"{shown(each.file)}:{each.line}:{each.column}: {severity}: {shown(each.message)} [{each.rule}]")
    text = texts.get(each.file)
    if text is not None and text.text:
        line = text.line(each.line)
        first = max(0, each.column - 1 - _WINDOW // 2) if len(line) > _WINDOW else 0
        # One character stays one character, so that the mark stands below what it means.
        visible = "".join(one if one.isprintable() else " " for one in line[first : first + _WINDOW])
        width = max(1, min(each.end_column - each.column, _WINDOW // 2))
        click.echo(f"  {visible}\n  {' ' * (each.column - 1 - first)}{click.style('^' * width, fg='green')}")
    if each.fix:
        click.echo(f"  fix: {shown(each.fix)}")


def _print_summary(checked: Checked) -> None:
    looked = f"{count(checked.policies, 'policy', 'policies')} in {count(len(checked.texts), 'file')}"
    if not checked.findings:
        click.echo(f"{looked}: nothing found")
        return
    found = f"{count(checked.errors, 'error')}, {count(checked.warnings, 'warning')}"
    click.echo(f"{looked}: {found}")


def _annotation(each: Finding) -> str:
    """A finding as a workflow command of GitHub Actions (docs.github.com, "Workflow commands")."""
    text = f"{each.message}; {each.fix}" if each.fix else each.message
    place = f"file={_property(each.file)},line={each.line},col={each.column},endColumn={each.end_column}"
    return f"::{each.severity} {place},title={_property(each.rule)}::{_escaped(text)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def _format_stdin(only_check: bool, line_width: int) -> None:
    from exequatur.authoring.checks.format import format_text

    text = _decoded("<stdin>", _bounded("<stdin>", sys.stdin.buffer))
    formatted = format_text("<stdin>", text, line_width)
    if formatted.text is None:
        _refuse(formatted.findings)
    elif only_check:
        if formatted.text != text:
            click.echo("not formatted: <stdin>")
            sys.exit(1)
    else:
        click.echo(formatted.text, nl=False)


def _files(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(each for each in path.glob("*.cedar") if not each.name.startswith("."))
            if not inside:
                raise PolicyError(f"{path} has no *.cedar file; name a file or the folder that has them")
            found += inside
        elif path.is_file():
            if path.suffix != ".cedar":
                raise PolicyError(f"{path} is no *.cedar file; only policies are formatted")
            found.append(path)
        else:
            raise PolicyError(f"{path} is neither a file nor a folder; name the policies to format")
    return list(dict.fromkeys(found))


def _read(path: Path) -> str:
    if not path.is_file():
        # A pipe would block the reader for ever.
        raise PolicyError(f"{path} is not a regular file; replace it by one, or remove it")
    with path.open("rb") as stream:
        return _decoded(str(path), _bounded(str(path), stream))


def _bounded(name: str, stream: Any) -> bytes:
    from exequatur.policy.source import MAX_BUNDLE_BYTES

    data: bytes = stream.read(MAX_BUNDLE_BYTES + 1)
    if len(data) > MAX_BUNDLE_BYTES:
        raise PolicyError(f"{name}: larger than {MAX_BUNDLE_BYTES >> 20} MiB; split it")
    return data


def _decoded(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PolicyError(f"{name}:{line}: not valid UTF-8; save the file as UTF-8") from None


def _refuse(broken: Sequence[Finding]) -> None:
    for each in broken:
        fix = f"; {each.fix}" if each.fix else ""
        click.echo(f"{shown(each.file)}:{each.line}:{each.column}: {shown(each.message)}{shown(fix)}", err=True)
    files = len({each.file for each in broken})
    raise PolicyError(f"{count(files, 'file')} could not be formatted and stayed as before; correct what is said above")


COMMANDS = (check, fmt)
