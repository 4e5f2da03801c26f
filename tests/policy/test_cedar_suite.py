"""The Cedar project's public integration and corpus tests: a bundle gives exactly Cedar's answers.

A small part of them stands in ``cedar_suite``. ``EXEQUATUR_CEDAR_SUITE`` names a checkout of all of them.
"""

import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from exequatur.errors import PolicyError
from exequatur.policy.bundle import PolicyBundle

VENDORED = Path(__file__).with_name("cedar_suite")
CHECKOUT = "EXEQUATUR_CEDAR_SUITE"
#: With it a bundle has a policy that cannot apply, so that Cedar is asked about the others without it.
OTHER_ACTION = '\npermit(principal, action == Never::Action::"asked", resource);\n'
FAILED_POLICY = re.compile(r"error while evaluating policy `([^`]*)`: ")


@dataclass(frozen=True)
class Case:
    """One of the suite's files, with the texts that it names."""

    name: str
    policies: str
    schema: str
    entities: list[dict[str, Any]]
    validates: bool
    requests: list[dict[str, Any]]


def text(path: Path) -> str:
    # Not read_text, which would change line ends inside of string literals.
    return path.read_bytes().decode()


def cases(root: Path) -> Iterator[Case]:
    """Every test below a folder, in the order of their names."""
    for path in sorted([*root.glob("tests/*/*.json"), *root.glob("corpus-tests/*.json")]):
        if path.name.endswith(".entities.json"):
            continue
        content = json.loads(text(path))
        yield Case(
            str(path.relative_to(root)),
            text(root / content["policies"]),
            text(root / content["schema"]),
            json.loads(text(root / content["entities"])),
            content["shouldValidate"],
            content["requests"],
        )


def differences(case: Case, policies: str) -> list[str]:
    """Where a bundle of these policies answers a request of the case in another way than Cedar does."""
    bundle = PolicyBundle.from_parts(policies, case.schema, case.entities)
    found = []
    for number, request in enumerate(case.requests):
        parts = (request[part] for part in ("principal", "action", "resource", "context"))
        decision = bundle.evaluate(*parts)
        failed = [FAILED_POLICY.match(error) for error in decision.errors]
        given = (
            "allow" if decision.allowed else "deny",
            sorted(decision.reasons),
            sorted(match[1] if match else "?" for match in failed),
        )
        wanted = (request["decision"], sorted(request["reason"]), sorted(request["errors"]))
        if given != wanted:
            found.append(f"{case.name}, request {number}: {given} instead of {wanted}")
    return found


def faulty(case: Case) -> bool:
    """Whether the gate would refuse the case's policies."""
    try:
        PolicyBundle.from_parts(case.policies, case.schema, case.entities, strict=True)
    except PolicyError as error:
        # Cedar validates a call with too many arguments where it can tell that it is never reached.
        return not re.search(r"expects \d argument", str(error)) or not case.validates
    return False


def check(case: Case) -> None:
    assert differences(case, case.policies) == []
    assert differences(case, case.policies + OTHER_ACTION) == []
    assert faulty(case) != case.validates, case.name


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the whole suite, its corpus unpacked."""
    if CHECKOUT not in os.environ:
        pytest.skip(f"set {CHECKOUT} to a checkout of github.com/cedar-policy/cedar-integration-tests for all of it")
    root = Path(os.environ[CHECKOUT])
    if (root / "corpus-tests").is_dir():
        return root
    unpacked = tmp_path_factory.mktemp("cedar-suite")
    with tarfile.open(root / "corpus-tests.tar.gz") as archive:
        archive.extractall(unpacked, filter="data")
    for folder in ("tests", "sample-data"):
        (unpacked / folder).symlink_to((root / folder).resolve())
    return unpacked


@pytest.mark.parametrize("case", list(cases(VENDORED)), ids=lambda case: case.name)
def test_a_bundle_answers_a_published_test_of_cedar_as_cedar_does(case: Case) -> None:
    check(case)


def test_a_bundle_answers_every_published_test_of_cedar_as_cedar_does(checkout: Path) -> None:
    count = requests = 0
    for case in cases(checkout):
        check(case)
        count += 1
        requests += len(case.requests)
    print(f"{count} tests with {requests} requests")
    assert count > 1000
