"""Switches off each numbered rule in turn and names the test that notices (``make mutate``).

A rule is listed at the head of the module that keeps it, as ``V4  ...``. What keeps it is found in the code: a
condition that raises ``StatementError("V4", ...)``, or a statement whose line is marked ``# [V4]``. In a copy of the
package, never in the tree, the condition becomes false, the statement goes or the exception is not caught, one at a
time, and the tests marked ``rule("V4")`` run against that copy. One of them has to fail. :mod:`tests.mutations` has the
mutations that have to be written down.

The verifiers, the gate, the authority and the releases number their rules together. Any other module numbers its own,
and they are called after it: ``rule("arguments.A7")`` is rule A7 of ``policy/arguments.py``.

It fails when a mutant survives, when a rule has no mutant or no test, when a test is marked with a rule that no module
lists, and when the tests do not pass without any mutation.

    python -m tests.mutate [V C1 arguments reads.R5 ...]    only these rules, families or modules
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

from tests.mutations import TABLE

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "interceptors" / "exequatur"
TOGETHER = (
    "statements/*.py",
    "gate/*.py",
    "authority/*.py",
    "control/*.py",
    "release/*.py",
    "revocation/*.py",
    "policy/engine.py",
)
"""Modules whose rules are numbered together."""
APART = (
    "approvals.py",
    "audit/agreed.py",
    "audit/bundle.py",
    "audit/counted.py",
    "audit/decisions.py",
    "audit/measured.py",
    "audit/recompute.py",
    "audit/resets.py",
    "audit/restrictions.py",
    "audit/standing.py",
    "authoring/cases/*.py",
    "authoring/checks/check.py",
    "authoring/whatif/*.py",
    "authority/connection.py",
    "authority/following.py",
    "authority/possession.py",
    "authority/remote.py",
    "authority/service/*.py",
    "behavior/*.py",
    "console/*.py",
    "console/sandbox/*.py",
    "gate/client/completions.py",
    "gate/client/operations.py",
    "gate/client/pending.py",
    "gate/client/schedules.py",
    "gate/client/service.py",
    "gate/counting.py",
    "gate/shadow.py",
    "gate/writer.py",
    "identity/*.py",
    "integrity/*.py",
    "lineage/ledger.py",
    "policy/*.py",
)
"""Modules that number rules of their own. The rest of the audit is shown by ``make mutate-audit``."""
WORKERS = 2
LIMIT = 120.0
"""Seconds after which the tests of a mutant are ended: it made one of them wait for ever."""
UNMUTATED_LIMIT = 600.0

_LISTED = re.compile(r"^ *([A-Z]{1,2}\d{1,2})  +\S", re.MULTILINE)
_MARK = re.compile(r"# \[([A-Z]{1,2}\d{1,2})\]")
_SERVERLESS = ("tests/statements/", "tests/policy/", "tests/authoring/")
_REFUSALS = {"StatementError", "UnknownKeyError"}


@dataclass(frozen=True)
class Mutant:
    """One place where a rule is kept, and the module with it switched off."""

    rule: str
    path: str
    line: int
    source: str


# Finding the places.


def called(path: str, number: str) -> str:
    """What a rule of a module is called.

    Args:
        path: The module, below the package.
        number: As the module lists it.
    """
    module = PurePosixPath(path)
    together = path in TOGETHER or (path not in APART and any(map(module.match, TOGETHER)))
    return number if together else f"{module.stem}.{number}"


def listed(tree: ast.AST) -> set[str]:
    """The rules that the docstrings of a module list."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(node, clean=False) or "" for node in ast.walk(tree) if isinstance(node, documented)]
    return {rule for text in texts for rule in _LISTED.findall(text)}


def marks(source: str) -> dict[int, str]:
    """The rule that each marked line keeps."""
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and (match := _MARK.match(token.string)):
            found[token.start[0]] = match[1]
    return found


def refusal(node: ast.AST) -> str | None:
    """The rule that a ``raise`` names, if it names one."""
    match node:
        case ast.Raise(exc=ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=str(rule)), *_])):
            return rule if name in _REFUSALS else None
    return None


def weakened(test: ast.expr) -> Iterator[tuple[ast.expr, str]]:
    """What to replace in a condition that refuses, so that each of its reasons is gone once."""
    match test:
        case ast.BoolOp(op=ast.Or(), values=values):
            for value in values:
                yield from weakened(value)
        case ast.BoolOp(op=ast.And(), values=values) if any(_is_or(value) for value in values):
            for value in filter(_is_or, values):
                yield from weakened(value)
        case ast.UnaryOp(op=ast.Not(), operand=ast.BoolOp(op=ast.And(), values=values)):
            for value in values:
                yield value, "True"
        case _:
            yield test, "False"


def _is_or(node: ast.expr) -> bool:
    return isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or)


def replaced(source: str, node: ast.expr | ast.stmt, text: str) -> str:
    """The source with ``text`` where the node is."""
    lines = source.encode().splitlines(keepends=True)
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    before = b"".join(lines[: node.lineno - 1]) + lines[node.lineno - 1][: node.col_offset]
    after = lines[node.end_lineno - 1][node.end_col_offset :] + b"".join(lines[node.end_lineno :])
    return (before + text.encode() + after).decode()


def switched_off(node: ast.If | ast.Expr | ast.ExceptHandler) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """What to replace in a marked statement."""
    match node:
        case ast.If(test=test):
            yield test, "False"
        case ast.ExceptHandler(type=ast.expr() as caught):
            yield caught, "()"
        case ast.Expr():
            yield node, "pass"


def mutants_of(path: str, source: str) -> Iterator[Mutant]:
    """Every mutant of a module."""
    tree = ast.parse(source)
    marked = marks(source)
    conditions = {
        child: node.test for node in ast.walk(tree) if isinstance(node, ast.If) for child in ast.iter_child_nodes(node)
    }
    for node in ast.walk(tree):
        rule = refusal(node)
        if rule is not None and isinstance(node, ast.Raise):
            test = conditions.get(node)
            places = weakened(test) if test is not None else [(node, "pass")]
            for place, text in places:
                yield Mutant(called(path, rule), path, place.lineno, replaced(source, place, text))
        elif isinstance(node, ast.If | ast.Expr | ast.ExceptHandler) and node.lineno in marked:
            rule = called(path, marked[node.lineno])
            for place, text in switched_off(node):
                yield Mutant(rule, path, place.lineno, replaced(source, place, text))
    for rule, where, old, new in TABLE:
        if where == path:
            if source.count(old) != 1:
                raise SystemExit(
                    f"tests/mutations.py: {rule} in {path}: the text stands there {source.count(old)} times"
                )
            changed = source.replace(old, new)
            ast.parse(changed)
            yield Mutant(rule, path, source[: source.index(old)].count("\n") + 1, changed)


# Finding and running the tests.


class Collector:
    """A pytest plugin that notes which test is marked with which rule."""

    def __init__(self) -> None:
        self.tests: dict[str, list[str]] = defaultdict(list)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for mark in item.iter_markers("rule"):
                name = item.nodeid.partition("[")[0]
                for rule in mark.args:
                    if name not in self.tests[rule]:
                        self.tests[rule].append(name)


def marked_tests() -> dict[str, list[str]]:
    """The tests of each rule; those that need no server first."""
    collector, output = Collector(), io.StringIO()
    with contextlib.redirect_stdout(output):
        code = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", str(ROOT / "tests")], plugins=[collector])
    if code != pytest.ExitCode.OK:
        raise SystemExit(f"The tests cannot be collected:\n{output.getvalue()[-2000:]}")
    return {
        rule: sorted(tests, key=lambda name: not name.startswith(_SERVERLESS))
        for rule, tests in collector.tests.items()
    }


def run(copy: Path, command: Sequence[str], limit: float = LIMIT) -> tuple[int | None, str]:
    """Run Python against a copy of the package; no exit code means that it did not end."""
    environment = os.environ | {
        "PYTHONPATH": str(copy),
        "PYTHONUNBUFFERED": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(copy / "hypothesis"),
    }
    with (copy / "output").open("w+b") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code: int | None = None
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # The tests' Temporal server is in the same group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return code, output.read().decode(errors="replace")


def pytest_command(tests: Sequence[str]) -> list[str]:
    return [
        "-m",
        "pytest",
        "-x",
        "-v",
        "--tb=line",
        "--show-capture=no",
        "-rfE",
        "--no-header",
        "-p",
        "no:cacheprovider",
        *tests,
    ]


def copied(folder: Path) -> Path:
    """A copy of the package, below a folder that can stand on the path."""
    shutil.copytree(PACKAGE, folder / "exequatur", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def judge(mutant: Mutant, tests: Sequence[str]) -> tuple[bool, str]:
    """Whether the tests notice a mutant, and which one does, or what came of it."""
    with tempfile.TemporaryDirectory(prefix="exequatur-mutant-") as name:
        copy = copied(Path(name))
        (copy / "exequatur" / mutant.path).write_text(mutant.source)
        code, output = run(copy, pytest_command(tests))
    if code is None or code < 0:
        running = [line.split()[0] for line in output.splitlines() if line.startswith("tests/")]
        how = "does not end" if code is None else "ends the process"
        return bool(running), f"{_name(running[-1])} ({how})" if running else "no test began in time"
    failed = re.search(r"^FAILED (\S+)", output, re.MULTILINE)
    if code == pytest.ExitCode.TESTS_FAILED and failed:
        return True, _name(failed[1])
    if code == pytest.ExitCode.OK:
        return False, "SURVIVED"
    return False, "NOT JUDGED: " + (output.strip().splitlines() or ["no output"])[-1]


def _name(test: str) -> str:
    return test.partition("[")[0].rpartition("::")[2]


def check_unmutated(tests: Sequence[str]) -> None:
    """The copy is what is imported, and without a mutation everything passes."""
    with tempfile.TemporaryDirectory(prefix="exequatur-unmutated-") as name:
        copy = copied(Path(name))
        code, output = run(copy, ["-c", "import exequatur; print(exequatur.__file__)"])
        if code != 0 or not Path(output.strip()).is_relative_to(copy):
            raise SystemExit(f"The copy of the package is not the one that is imported, but: {output.strip()}")
        code, output = run(copy, pytest_command(tests), UNMUTATED_LIMIT)
        if code != 0:
            how = "do not end" if code is None else "do not pass"
            raise SystemExit(f"The tests {how} without any mutation:\n{output[-3000:]}")


def chosen(rules: set[str], only: Sequence[str]) -> list[str]:
    """The rules by module and number, or those that are asked for by name, family or module."""

    def parts(rule: str) -> tuple[str, str, int]:
        module, _, number = rule.rpartition(".")
        family = number.rstrip("0123456789")
        return module, family, int(number[len(family) :])

    wanted = {rule for rule in rules if not only or {rule, parts(rule)["." not in rule]} & set(only)}
    return sorted(wanted, key=parts)


def all_rules() -> set[str]:
    """The rules that any module of the package lists."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        here = path.relative_to(PACKAGE).as_posix()
        found |= {called(here, number) for number in listed(ast.parse(path.read_text()))}
    return found


def main(only: Sequence[str]) -> int:
    begun = time.monotonic()
    rules: set[str] = set()
    mutants: dict[str, list[Mutant]] = defaultdict(list)
    modules = {path for pattern in (*TOGETHER, *APART) for path in PACKAGE.glob(pattern)}
    for path in sorted(modules | {PACKAGE / where for _, where, _, _ in TABLE}):
        source, here = path.read_text(), path.relative_to(PACKAGE).as_posix()
        if path in modules:
            rules |= {called(here, number) for number in listed(ast.parse(source))}
        for mutant in mutants_of(here, source):
            mutants[mutant.rule].append(mutant)
    if unlisted := set(mutants) - rules:
        raise SystemExit(f"No module lists {', '.join(sorted(unlisted))}")
    tests = marked_tests()
    if unknown := set(tests) - all_rules():
        raise SystemExit(f"Tests are marked with {', '.join(sorted(unknown))}, and no module lists such a rule")
    selected = chosen(rules, only)
    check_unmutated(sorted({test for rule in selected for test in tests.get(rule, ())}))
    print(f"The unmutated tests pass ({time.monotonic() - begun:.0f} s).", flush=True)
    work = [mutant for rule in selected if tests.get(rule) for mutant in mutants[rule]]
    survived: set[str] = {rule for rule in selected if not tests.get(rule) or not mutants[rule]}
    with ThreadPoolExecutor(WORKERS) as pool:
        for mutant, (killed, what) in zip(
            work, pool.map(lambda each: judge(each, tests[each.rule]), work), strict=True
        ):
            print(f"{mutant.rule:<14} {f'{mutant.path}:{mutant.line}':<34} {what}", flush=True)
            if not killed:
                survived.add(mutant.rule)
    for rule in selected:
        if not tests.get(rule):
            print(f"{rule:<14} no test is marked with it")
        if not mutants[rule]:
            print(f"{rule:<14} no mutant of it is known")
    print(
        f"{len(selected)} rules, {len(selected) - len(survived)} killed, {len(survived)} survived "
        f"({len(work)} mutants, {time.monotonic() - begun:.0f} s)"
    )
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
