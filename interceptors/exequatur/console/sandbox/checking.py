"""Checks a visitor's policies in a process of its own, so that what breaks or stalls Cedar breaks nothing else.

Rules, numbered as the code marks them:

X1  What is larger than the bound is refused before anything reads it.
X2  The process that reads it is ended when it takes too long, and has little memory; that is a refusal.
X3  Only a check that found no error lets a policy through: a process that died or said something else does not.

The module is that process, too: ``python -m exequatur.console.sandbox.checking`` reads texts as JSON from standard
input and writes what it found to standard output.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from exequatur.console.sandbox.limits import Limits

_MODULE = "exequatur.console.sandbox.checking"
MEMORY = 1 << 30
"""Bytes of address space; the modules alone take some 300 MiB of it."""
MOST = 50
"""Findings that are told; whoever wrote more errors reads the first ones first."""
_KEPT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "TMPDIR")
"""Variables that the process gets; whatever else this one was given is not its business."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Args:
        severity: With an error, the policies are not put in force.
        file: The file's name.
        line: From 1.
        column: From 1.
        end_column: Behind the last character.
        message: What it is.
        fix: The next step; may be empty.
        rule: By which rule it was found.
    """

    severity: Literal["error", "warning"]
    file: str
    line: int
    column: int
    end_column: int
    message: str
    fix: str
    rule: str


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Args:
        problems: Errors; warnings only where there is no error.
        digest: Of the bundle that the policies make; ``None`` where they make none.
    """

    problems: tuple[Problem, ...]
    digest: str | None

    @property
    def good(self) -> bool:
        """Whether the policies can be put in force."""
        return self.digest is not None and all(each.severity != "error" for each in self.problems)


def too_large(policies: Mapping[str, str], limits: Limits) -> Problem | None:
    """What is wrong with the size of these texts, if anything is."""
    size = 0
    for name, text in policies.items():
        try:
            size += len(text.encode())
        except UnicodeEncodeError:
            return _refusal(name, "there is half of a character in it, which no file can hold", "type it anew")
        if size > limits.policy_bytes:  # [X1]
            bound = f"the policies are larger than {limits.policy_bytes // 1024} KiB, which is enough for a demo"
            return _refusal(name, bound, "make them shorter")
    return None


async def check(policies: Mapping[str, str], schema: str | None, entities: str | None, limits: Limits) -> Checked:
    """Check policies.

    Args:
        policies: Texts by file name.
        schema: The Cedar schema.
        entities: The entities, as JSON.
        limits: How large the texts may be, and how long it may take.
    """
    wrong = too_large(policies, limits)
    if wrong is not None:
        return Checked((wrong,), None)
    texts = json.dumps({"policies": policies, "schema": schema, "entities": entities}).encode()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", _MODULE),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={name: os.environ[name] for name in _KEPT if name in os.environ},
    )
    try:
        async with asyncio.timeout(limits.check_seconds):  # X2
            said, _ = await process.communicate(texts)
    except TimeoutError:
        return _failed(policies, "checking them takes too long, so deciding by them might, too", "make them simpler")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    try:
        answer = json.loads(said)
        found = tuple(Problem(**each) for each in answer["problems"])
        return Checked(found, answer["digest"])
    except (ValueError, KeyError, TypeError):  # [X3]
        return _failed(policies, "Cedar cannot take them: its process ended over them", "make them simpler")


def _failed(policies: Mapping[str, str], message: str, fix: str) -> Checked:
    return Checked((_refusal(next(iter(policies), "policies"), message, fix),), None)


def _refusal(name: str, message: str, fix: str) -> Problem:
    return Problem("error", name, 1, 1, 2, message, fix, "refused")


def _found(texts: Mapping[str, Any]) -> dict[str, Any]:
    """What the process of its own does."""
    from exequatur.authoring.checks.check import check_source
    from exequatur.policy.source import ENTITIES_NAME, SCHEMA_NAMES, BundleSource, SourceFile

    source = BundleSource(
        tuple(SourceFile(name, text) for name, text in sorted(texts["policies"].items())),
        None if texts["schema"] is None else SourceFile(SCHEMA_NAMES[0], texts["schema"]),
        None if texts["entities"] is None else SourceFile(ENTITIES_NAME, texts["entities"]),
    )
    checked = check_source(source)
    loads = not checked.errors
    # What is only a warning beside an error may merely follow from it: what a broken policy permits is missing.
    problems = [
        Problem(e.severity, e.file, e.line, e.column, e.end_column, e.message, e.fix, e.rule)
        for e in checked.findings
        if loads or e.severity == "error"
    ]
    return {"problems": [asdict(each) for each in problems[:MOST]], "digest": source.digest if loads else None}


def _main() -> None:
    import resource

    with contextlib.suppress(OSError, ValueError):  # a system that has no such bound
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))  # X2
    sys.stdout.write(json.dumps(_found(json.load(sys.stdin))))


if __name__ == "__main__":
    _main()
