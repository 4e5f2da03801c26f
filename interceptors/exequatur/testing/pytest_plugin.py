"""What ``pytest`` learns from an installed Exequatur: the policy tests of policy folders, and fixtures.

A policy test is a case in a file ``*.yaml``, ``*.yml`` or ``*.json`` in a folder ``tests`` beside ``*.cedar`` files;
:mod:`exequatur.authoring.cases.cases` says what one looks like. Other files are left alone. Every case is a test of its
own, with the case's name: ``pytest policies/tests/refunds.yaml -k limit``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from exequatur.errors import PolicyError

if TYPE_CHECKING:
    # At run time when a policy test is collected: pytest loads this file wherever the package is installed.
    from exequatur.authoring.cases.cases import Case
    from exequatur.policy.bundle import PolicyBundle

pytest_plugins = ("exequatur.testing.fixtures",)

_BUNDLES = pytest.StashKey[dict[Path, "PolicyBundle"]]()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a file with policy tests."""
    if file_path.suffix == ".py" or file_path.parent.name != "tests":
        return None
    if next(file_path.parent.parent.glob("*.cedar"), None) is None:
        return None
    from exequatur.authoring.cases.cases import is_case_file

    return CaseFile.from_parent(parent, path=file_path) if is_case_file(file_path) else None


class CaseFile(pytest.File):
    """A file with policy tests."""

    def collect(self) -> Iterator[CaseItem]:
        """Read the cases and load the policies; what is wrong with either is an error of this file alone."""
        from exequatur.authoring.cases.cases import read_cases

        path = _from_here(self.path)
        try:
            cases = read_cases(path)
            bundle = self._bundle(path.parent.parent)
        except PolicyError as error:
            raise self.CollectError(str(error)) from None
        except ModuleNotFoundError as error:
            raise self.CollectError(f"{path}: {error}; run: pip install 'exequatur[testing]'") from None
        for case in cases:
            yield CaseItem.from_parent(self, name=case.name, case=case, bundle=bundle)

    def _bundle(self, folder: Path) -> PolicyBundle:
        from exequatur.policy.bundle import PolicyBundle

        bundles = self.config.stash.setdefault(_BUNDLES, {})
        if folder not in bundles:
            bundles[folder] = PolicyBundle.from_folder(folder)
        return bundles[folder]


class CaseItem(pytest.Item):
    """A policy test."""

    def __init__(self, *, case: Case, bundle: PolicyBundle, **others: Any) -> None:
        super().__init__(**others)
        self._case = case
        self._bundle = bundle

    def runtest(self) -> None:
        """Ask the case.

        Raises:
            CaseFailed: The answer is not the expected one, or the case cannot be asked.
        """
        from exequatur.authoring.cases.results import run_case

        result = run_case(self._bundle, self._case)
        if result.outcome != "passed":
            lines = [f"{result.where}: {self._case.name}", *result.sentences(self._bundle)]
            raise CaseFailed("\n    ".join(lines))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Say what a person needs; where in this program it was noticed is not of interest."""
        if isinstance(excinfo.value, CaseFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Say where the case stands; pytest counts lines from 0."""
        return self.path, self._case.place.line - 1, f"policy test: {self.name}"


class CaseFailed(Exception):
    """A policy test did not pass; the message says why and where."""


def _from_here(path: Path) -> Path:
    """A path as people write it where they started pytest, if that is above it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
