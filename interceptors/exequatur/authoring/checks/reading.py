"""Policies, one by one: which Cedar can parse, and what is wrong with the others."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

import cedarpy
from cedarpy import PolicySet, pst

from exequatur.authoring.checks.findings import Finding, finding
from exequatur.authoring.checks.locate import Condition, Span, annotation, conditions, locate
from exequatur.authoring.checks.texts import Text, WrittenPolicy
from exequatur.authoring.expression import Part, parts_of
from exequatur.policy.nesting import too_deep
from exequatur.policy.syntax import Token, parse_error_offset

_FUNCTIONS = ("decimal", "datetime", "duration", "ip")
_METHODS = (
    "contains",
    "containsAll",
    "containsAny",
    "isEmpty",
    "getTag",
    "hasTag",
    "lessThan",
    "lessThanOrEqual",
    "greaterThan",
    "greaterThanOrEqual",
    "isIpv4",
    "isIpv6",
    "isLoopback",
    "isMulticast",
    "isInRange",
    "offset",
    "durationSince",
    "toDate",
    "toTime",
    "toMilliseconds",
    "toSeconds",
    "toMinutes",
    "toHours",
    "toDays",
)
_VARIABLES = ("principal", "action", "resource", "context")
_COMPARED = {
    "<": "lessThan",
    "<=": "lessThanOrEqual",
    ">": "greaterThan",
    ">=": "greaterThanOrEqual",
    "==": "",
    "!=": "",
}
_NO_MEMBERS = re.compile(r"`(\w+)` has no fields or methods")
#: What a policy can end with, before its semicolon.
_ENDS = frozenset({")", "}"})
_WRITE_INSTEAD = {
    "'": 'write strings in double quotes: "…"',
    '"': "end the string with a double quote",
    "\ufeff": "save the file without a byte order mark",
    "/": "write comments as // …",
    "and": "write &&",
    "or": "write ||",
    "not": "write !",
}
_FIXES = (
    ("nest", "split the condition into several policies"),
    ("is a function", "write it in front of its argument, as in decimal(…)"),
    ("is not a valid operator", "write == to compare"),
    ("not a valid escape", 'write \\\\ for a backslash, \\" for a quote'),
    ("duplicate annotation", "remove one of them"),
    ("policy effect", "write permit or forbid"),
    ("policy condition", "write when or unless"),
    ("clause cannot be empty", "write a condition, or remove the clause"),
    ("multiple relational", "write one comparison, join several with &&"),
    ("division", "there is no division; compare with a product or a number"),
    ("remainder", "there is no remainder; compare with a number"),
    ("too many occurrences", "write it once or not at all"),
    ("integer parse error", "whole numbers reach up to 9223372036854775807"),
    ("found template slot", "name the entity"),
    ("found ?", "name the entity"),
    ("set of entity uids", "write the set in a condition: when { principal in […] }"),
    ("`is` cannot appear", 'write action == Action::"…" or action in […]'),
    ("entity uid", 'write an entity as Type::"id"'),
    ("in the scope", "the scope is (principal, action, resource)"),
    ("must be used", "the scope is (principal, action, resource), in this order"),
    ("has", 'write has name or has "name"'),
    ("duplicate key", "remove one of the two"),
    ("argument", "give it as many arguments as it expects"),
    ("pattern literal", 'write a string in which * stands for anything: like "a*"'),
    ("reserved", 'write ["…"] instead'),
    ("entity type name", "write a type's name without quotes"),
    ("string literal", 'write ["name"]'),
)
#: Messages repeat what is written, which may be long.
_MAX_MESSAGE = 300


@dataclass(frozen=True, eq=False)
class ReadPolicy:
    """A policy that Cedar can parse.

    Args:
        written: How it is written.
        node: What it says.
        template: It has slots.
    """

    written: WrittenPolicy
    node: pst.Template
    template: bool

    @property
    def position(self) -> str:
        """The name that Cedar gives it."""
        return f"policy{self.written.index}"

    @property
    def name(self) -> str:
        """Its ``@id``, or else its position."""
        return self.node.annotations.get("id", "") or self.position

    @cached_property
    def conditions(self) -> list[tuple[Part, Condition | None]]:
        """Its conditions, each with its place as far as it is known."""
        parts = [part for part in parts_of(self.node) if part.origin in ("when", "unless")]
        places = conditions(self.written.words)
        if len(places) != len(parts):
            return [(part, None) for part in parts]
        return list(zip(parts, places, strict=True))

    def span_of(self, condition: Condition | None) -> Span:
        """Where a condition stands; the policy's first word if that is not known."""
        first = self.written.words[0]
        return condition.span if condition is not None else (first.start, first.end)

    def found(
        self,
        rule: str,
        message: str,
        fix: str = "",
        *,
        at: Span | None = None,
        warning: bool = False,
        binding: bool = False,
    ) -> Finding:
        """Make a finding about this policy.

        Args:
            rule: The rule's name.
            message: What is wrong.
            fix: The next step.
            at: The place; the word ``permit`` or ``forbid`` if absent.
            warning: It is a warning whatever the rule usually is.
            binding: No comment can allow it.
        """
        start, end = at or self._effect()
        return finding(
            rule,
            self.written.file,
            start,
            end,
            message,
            fix,
            policy=self.name,
            severity="warning" if warning else None,
            binding=binding,
        )

    def annotation(self, name: str) -> Span:
        """Where the value of an annotation stands."""
        return annotation(self.written.words, name) or self._effect()

    def _effect(self) -> Span:
        words = self.written.words
        for index, word in enumerate(words):
            if word.text == self.node.effect and (index == 0 or words[index - 1].text != "@"):
                return word.start, word.end
        return words[0].start, words[0].end


def read_policies(policies: Sequence[WrittenPolicy]) -> tuple[list[ReadPolicy], list[Finding]]:
    """Parse policies one by one, so that a broken one hides no other."""
    read: list[ReadPolicy] = []
    findings: list[Finding] = []
    for policy in policies:
        found = _read(policy)
        if isinstance(found, ReadPolicy):
            read.append(found)
        else:
            findings.append(found)
    return read, findings


def unsplit(file: Text, policies: Sequence[WrittenPolicy]) -> Iterator[Finding]:
    """Find a file that Cedar refuses although each of its policies parses."""
    try:
        found = PolicySet.from_str(file.text, release_gil=True)
    except ValueError as error:
        offset = parse_error_offset(file.text, PolicySet.from_str) or 0
        yield finding("syntax", file, offset, offset + 1, str(error)[:_MAX_MESSAGE])
        return
    if len(found) + len(found.templates()) != len(policies):
        yield finding(
            "syntax", file, 0, 0, "Cedar finds another number of policies here", "write one policy after the other"
        )


def _read(policy: WrittenPolicy) -> ReadPolicy | Finding:
    name = f"policy{policy.index}"
    deep = too_deep(policy.words)
    if deep is not None:
        return finding(
            "syntax",
            policy.file,
            deep.start,
            deep.end,
            "the condition is nested too deeply",
            "split it into several policies",
            policy=name,
        )
    source = policy.source
    try:
        nodes = cedarpy.policies_to_pst(source)
    except ValueError as error:
        return _refused(policy, source, str(error), name)
    found = [(node, False) for node in nodes.static_policies.values()]
    found += [(node, True) for node in nodes.templates.values()]
    if len(found) != 1:
        return finding("syntax", policy.file, policy.start, policy.end, "this is no single policy", policy=name)
    return ReadPolicy(policy, *found[0])


def _refused(policy: WrittenPolicy, source: str, message: str, name: str) -> Finding:
    words = policy.words
    offset = parse_error_offset(source, PolicySet.from_str)
    if offset is not None:
        start = policy.start + offset
        index = next((i for i, word in enumerate(words) if word.start >= start), len(words))
        end = words[index].end if index < len(words) else start
        fix = _syntax_fix(policy, index, message)
    else:

        def complains(text: str) -> bool:
            try:
                cedarpy.policies_to_pst(text)
            except ValueError as error:
                return str(error) == message
            return False

        start, end = locate(words, policy.file.text, message, complains)
        fix = _meaning_fix(policy.file.text[start:end], message)
    return finding("syntax", policy.file, start, end, message[:_MAX_MESSAGE], fix, policy=name)


def _syntax_fix(policy: WrittenPolicy, index: int, message: str) -> str:
    words = policy.words
    texts = [word.text for word in words[max(0, index - 2) : index + 1]]
    if index >= len(words):
        complete = bool(words) and words[-1].text in _ENDS
        return "end the policy with a semicolon" if complete else "something is missing here"
    begins = len(texts) == 3 and texts[1] in ("permit", "forbid") and texts[2] == "(" and texts[0] in _ENDS
    if begins or (len(texts) > 1 and texts[-1] == "@" and texts[-2] in _ENDS):
        return "end the policy before with a semicolon"
    if "invalid token" in message and words[index].text.startswith('"'):
        return _WRITE_INSTEAD['"']
    return (
        _fraction_fix(words, index)
        or _comma_fix(words, index)
        or _WRITE_INSTEAD.get(texts[-1], "write: permit (principal, action, resource) when { … };")
    )


def _fraction_fix(words: Sequence[Token], index: int) -> str:
    """The next step where somebody wrote a number with a fraction; empty elsewhere."""
    texts = [word.text for word in words[max(0, index - 5) : index + 1]]
    if len(texts) < 3 or words[index].kind != "number" or words[index - 2].kind != "number" or texts[-2] != ".":
        return ""
    number, before = f"{texts[-3]}.{texts[-1]}", texts[:-3]
    if before[-1:] == ["-"] and before[-2:-1] and before[-2] in {*_COMPARED, "("}:
        number, before = f"-{number}", before[:-1]
    method = _COMPARED.get(before[-1]) if before else None
    written = f'decimal("{number}")'
    if before[-1:] == ["=="] or before[-1:] == ["!="]:
        written = f"{before[-1]} {written}"
    elif method:
        written = f".{method}({written})"
    return f"Cedar has no fractions: write {written}"


def _comma_fix(words: Sequence[Token], index: int) -> str:
    """The next step where the scope lacks a comma; empty elsewhere."""
    word, before = words[index], words[index - 1] if index else words[index]
    texts = [each.text for each in words[:index]]
    in_scope = "(" in texts and "{" not in texts and texts.count("(") == texts.count(")") + 1
    ends = before.kind in ("name", "string") or before.text == "]"
    if in_scope and ends and word.text in ("action", "resource") and before.text not in ("in", "is"):
        return f"a comma is missing before {word.text}"
    return ""


def _meaning_fix(written: str, message: str) -> str:
    if "valid function" in message or "valid method" in message:
        known = _FUNCTIONS if "function" in message else _METHODS
        close = get_close_matches(written, known, 1)
        return f"did you mean {close[0]}?" if close else f"there is {', '.join(known[:8])}"
    if "invalid variable" in message:
        close = get_close_matches(written, _VARIABLES, 1)
        return f"did you mean {close[0]}?" if close else 'write a string as "…", an argument as context.args.…'
    if unknown := _NO_MEMBERS.search(message):
        close = get_close_matches(unknown.group(1), _VARIABLES, 1)
        return f"did you mean {close[0]}?" if close else "write an argument as context.args.…"
    if "is a method" in message:
        return f"write it behind a value: ….{written}(…)"
    return next((fix for part, fix in _FIXES if part in message), "")
