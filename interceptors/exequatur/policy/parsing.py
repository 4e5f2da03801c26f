"""A bundle's texts in Cedar's own forms; what Cedar refuses is said with file, line and column."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import cedarpy
from cedarpy import PolicySet, Schema, pst

from exequatur.errors import PolicyError
from exequatur.policy.nesting import too_deep
from exequatur.policy.source import BundleSource, SourceFile
from exequatur.policy.syntax import Place, parse_error_offset, place_of, statements, tokens


@dataclass(frozen=True, slots=True)
class LocatedPolicy:
    """Where a policy is written.

    Args:
        file: The file's name.
        start: Offset of its first word in that file.
        place: Line and column of that word.
        text: The policy, without comments before it.
    """

    file: str
    start: int
    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.place}"


def parse_policies(source: BundleSource) -> PolicySet:
    """Parse every file by itself, so that an error names it, and then all policies together.

    Raises:
        PolicyError: Cedar refuses them.
    """
    for file in source.policies:
        _check_depth(file)
        try:
            PolicySet.from_str(file.text, release_gil=True)
        except ValueError as error:
            raise PolicyError(
                f"{_place_of_error(file)}: Cedar cannot parse this policy: {error}. Correct it and save it again."
            ) from None
    try:
        return PolicySet.from_str(source.policy_text, release_gil=True)
    except ValueError as error:
        names = ", ".join(file.name for file in source.policies)
        raise PolicyError(
            f"{names}: each parses, but not together: {error}. End every policy with a semicolon."
        ) from None


def parse_schema(file: SourceFile) -> Schema:
    """Parse a schema in Cedar or JSON syntax.

    Raises:
        PolicyError: Cedar refuses it.
    """
    parse = Schema.from_json_str
    if not file.text.lstrip().startswith("{"):  # Cedar's JSON reader bounds the depth by itself
        _check_depth(file)
        parse = Schema.from_str
    try:
        return parse(file.text, release_gil=True)
    except ValueError as error:
        raise PolicyError(f"{file.name}: Cedar refuses the schema: {error}. Correct it and save it again.") from None


def locations(source: BundleSource) -> dict[str, LocatedPolicy]:
    """Return each policy by its Cedar id, which counts policies from the first file to the last."""
    places = []
    for file in source.policies:
        lines = [0, *(match.end() for match in re.finditer("\n", file.text))]
        for each in statements(file.text):
            line = bisect_right(lines, each.start)
            place = Place(line, each.start - lines[line - 1] + 1)
            places.append(LocatedPolicy(file.name, each.start, place, each.text))
    return {f"policy{index}": place for index, place in enumerate(places)}


def told_apart(policies: PolicySet, located: Mapping[str, LocatedPolicy]) -> bool:
    """Tell whether the text splits into the policies that Cedar found in it."""
    templates = {template["id"] for template in policies.templates()}
    return len(located) == len(policies) + len(templates) and templates <= located.keys()


def policy_nodes(policies: PolicySet, located: Mapping[str, LocatedPolicy]) -> Iterator[tuple[str, pst.Template]]:
    """Convert policies to nodes, in the order of the bundle and without templates.

    It goes one by one. While Cedar converts no other thread runs, and a thousand policies take 0.1 s; and their nodes
    are so many that keeping them sets off Python's slow garbage collection.

    Yields:
        Cedar id and node.

    Raises:
        PolicyError: A policy is too deeply nested, or calls a function with too many or too few arguments.
    """
    if not told_apart(policies, located):
        yield from sorted(policies.to_pst().static_policies.items(), key=lambda item: position(item[0]))
        return
    templates = {template["id"] for template in policies.templates()}
    for policy_id, policy in located.items():
        if policy_id not in templates:
            try:
                (node,) = cedarpy.policies_to_pst(policy.text).static_policies.values()
            except ValueError as error:
                step = "Split the condition into several policies" if "nest" in str(error) else "Correct it"
                raise PolicyError(f"{policy}: {error}. {step}.") from None
            yield policy_id, node


def validation_fault(source: BundleSource, schema: Schema, located: Mapping[str, LocatedPolicy]) -> str | None:
    """Return what a strict validation of the policies against the schema finds, or None."""
    result = cedarpy.validate_policies(source.policy_text, schema, release_gil=True)
    if result.validation_passed:
        return None
    found = [
        f"{located.get(error.policy_id, 'policies')}: {error.error.removeprefix(f'for policy `{error.policy_id}`, ')}"
        for error in result.errors
    ]
    more = f" ({len(found) - 5} more)" if len(found) > 5 else ""
    return f"{'; '.join(found[:5])}{more}. Change the policy, or the schema if the activity's signature changed."


def position(policy_id: str) -> tuple[int, str]:
    """Order Cedar's ids of policies as the policies stand in the bundle."""
    digits = policy_id.removeprefix("policy")
    return (int(digits) if digits.isdecimal() else -1, policy_id)


def _check_depth(file: SourceFile) -> None:
    word = too_deep(tokens(file.text))
    if word is not None:
        raise PolicyError(
            f"{file.name}:{place_of(file.text, word.start)}: this is nested more deeply than Cedar can read. "
            "Split it into several policies."
        )


def _place_of_error(file: SourceFile) -> str:
    """Where the first policy that Cedar refuses is wrong, as exactly as Cedar's parser can tell."""
    for statement in statements(file.text):
        if _refused(PolicySet.from_str, statement.text):
            inside = parse_error_offset(statement.text, PolicySet.from_str) or 0
            return f"{file.name}:{place_of(file.text, statement.start + inside)}"
    return file.name


def _refused(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return True
    return False
