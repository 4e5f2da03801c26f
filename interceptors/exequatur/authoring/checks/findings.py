"""What a check finds, the rules that it finds it by, and how a policy is exempted from one."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Literal

from exequatur.authoring.checks.texts import Comment, Text

Severity = Literal["error", "warning"]

#: A name that a text misspells may be long; a sentence is not.
MAX_NAME = 100

_REMARK = re.compile(r"//\s*exequatur\s*:\s*(\w*)\s*([^(:#]*)")
_ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that is looked for.

    Args:
        name: Stable, for comments and editors.
        severity: An error is what a worker refuses, or what cannot be meant; a warning is what may be meant.
        about: One sentence for the documentation.
        may_be_allowed: A comment at a policy can exempt it.
    """

    name: str
    severity: Severity
    about: str
    may_be_allowed: bool = False


_ALL = (
    Rule("unreadable", "error", "A file cannot be read: not UTF-8, not a regular file, or too large."),
    Rule("syntax", "error", "Cedar cannot parse a policy."),
    Rule("schema", "error", "Cedar cannot read the schema, or it declares something twice."),
    Rule("untold", "error", "The schema requires something of the context that the gate does not tell."),
    Rule("entities", "error", "entities.json is not JSON, or an entity does not conform to the schema."),
    Rule("type", "error", "A policy does not fit the types of the schema."),
    Rule("unknown-activity", "error", "A policy names an action that the schema does not have."),
    Rule("unknown-argument", "error", "A policy reads an argument that an activity does not have."),
    Rule("duplicate-id", "error", "Two policies have the same @id."),
    Rule("shadowed-id", "error", "An @id is the name that another policy has by its position."),
    Rule("ttl", "error", "An @ttl is no duration."),
    Rule("refused", "error", "A worker refuses the bundle for another reason."),
    Rule("unrestricted-permit", "error", "A permit that no principal, action, resource or condition restricts.", True),
    Rule("never-applies", "error", "A policy that cannot apply to any request.", True),
    Rule(
        "optional-unguarded",
        "error",
        "A condition reads what may be absent without asking `has` first: Cedar skips the policy, and a forbid that is "
        "skipped is a hole. A warning for a permit without a schema.",
        True,
    ),
    Rule(
        "may-error",
        "error",
        "decimal(…), ip(…), datetime(…) or duration(…) of something that is not a literal. A warning without a schema.",
        True,
    ),
    Rule("approval", "error", "An @approval that is malformed or that nobody can give.", True),
    Rule("may-overflow", "warning", "Arithmetic with a number from outside, which fails beyond 64 bits.", True),
    Rule("shadowed", "warning", "A policy that another one makes superfluous.", True),
    Rule("missing-id", "warning", "A policy without @id: denials and receipts name it by its position.", True),
    Rule("template", "warning", "A template: it is never linked and decides nothing.", True),
    Rule(
        "unknown-annotation",
        "warning",
        "An annotation that is almost @id, @reason, @ttl or @approval, and has no effect. Others are free.",
        True,
    ),
    Rule(
        "role-unknown",
        "warning",
        "A policy, or an entity as its parent, names a role or group that entities.json does not have.",
        True,
    ),
    Rule("unused-action", "warning", "No permit can apply to an action: nobody can ever run it."),
    Rule("no-schema", "warning", "Without a schema nothing can be compared with the activities."),
    Rule(
        "schema-outdated", "warning", "The schema does not have what model.cedarschema declares, or has it otherwise."
    ),
    Rule("no-policies", "warning", "Without policies everything is denied. An error where there is no *.cedar file."),
    Rule("file-ignored", "warning", "A file that looks like a part of the bundle and is not read."),
    Rule("unknown-rule", "warning", "A comment allows a rule that does not exist, or that cannot be allowed."),
)
RULES: Final[Mapping[str, Rule]] = {rule.name: rule for rule in _ALL}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Args:
        rule: The rule's name.
        severity: How bad it is here.
        file: The file's name.
        line: From 1.
        column: From 1, in characters.
        end_column: Behind the last character; the same line.
        policy: The policy's ``@id`` or position; None if it is about no policy.
        message: One sentence without its full stop.
        fix: The next step; may be empty.
        binding: No comment can allow it; an error of this kind is one for which a worker refuses the bundle.
    """

    rule: str
    severity: Severity
    file: str
    line: int
    column: int
    end_column: int
    policy: str | None
    message: str
    fix: str
    binding: bool = False

    @property
    def order(self) -> tuple[object, ...]:
        """By file and place; what stands at one place, by rule."""
        return self.file, self.line, self.column, self.severity, self.rule, self.message


def finding(
    rule: str,
    text: Text,
    start: int,
    end: int,
    message: str,
    fix: str = "",
    *,
    policy: str | None = None,
    severity: Severity | None = None,
    binding: bool = False,
) -> Finding:
    """Make a finding about a piece of a text.

    Args:
        rule: The rule's name.
        text: The file.
        start: Offset of its first character.
        end: Offset behind the last one; only what stands on the first line is marked.
        message: One sentence without its full stop.
        fix: The next step.
        policy: The policy's name.
        severity: If it differs from the rule's.
        binding: No comment can allow it.
    """
    place = text.place(start)
    width = max(1, min(end - start, text.line_end(start) - start))
    return Finding(
        rule,
        severity or RULES[rule].severity,
        text.name,
        place.line,
        place.column,
        place.column + width,
        policy,
        message,
        fix,
        binding or not RULES[rule].may_be_allowed,
    )


def whole_file(rule: str, name: str, message: str, fix: str = "", *, severity: Severity | None = None) -> Finding:
    """Make a finding about a file as a whole."""
    return finding(rule, Text(name, ""), 0, 0, message, fix, severity=severity)


def did_you_mean(written: str, known: Iterable[str]) -> str:
    """Return a next step for a name that does not exist."""
    known = sorted(set(known))
    close = get_close_matches(written[:MAX_NAME], known, 1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    some = ", ".join(known[:8]) + (", …" if len(known) > 8 else "")
    return f"there is {some}" if some else ""


def is_slip_of(written: str, name: str) -> bool:
    """Tell whether a name is another one with a letter too many, too few, changed or swapped, or in another case."""
    written = written[:MAX_NAME]
    if written.lower() == name.lower():
        return written != name
    # Of two letters, too many words are one letter away.
    return len(name) > 2 and not _shortened(written.lower()).isdisjoint(_shortened(name.lower()))


def _shortened(name: str) -> set[str]:
    """A name, and what it is without one of its letters."""
    return {name, *(name[:index] + name[index + 1 :] for index in range(len(name)))}


def without_allowed(findings: Iterable[Finding], exempt: Mapping[tuple[str, str], frozenset[str]]) -> Iterator[Finding]:
    """Leave out what comments allow.

    Args:
        findings: With ``policy`` set where a policy is meant.
        exempt: Names of rules, by file and policy.
    """
    for each in findings:
        if each.binding or each.policy is None or each.rule not in exempt.get((each.file, each.policy), ()):
            yield each


def allowed_rules(comments: Iterable[Comment], text: Text, *, at_policy: bool) -> tuple[set[str], list[Finding]]:
    """Read ``// exequatur: allow RULE`` in comments.

    Args:
        comments: The comments of one policy, or those that belong to none.
        text: Their file.
        at_policy: They are at a policy.

    Returns:
        The rules that are allowed, and what is wrong with the comments.
    """
    allowed: set[str] = set()
    wrong: list[Finding] = []

    def refuse(comment: Comment, message: str, fix: str) -> None:
        wrong.append(finding("unknown-rule", text, comment.start, comment.start + len(comment.text), message, fix))

    may_be = [rule.name for rule in _ALL if rule.may_be_allowed]
    for comment in comments:
        remark = _REMARK.match(comment.text)
        if remark is None:
            continue
        names = re.split(r"[,\s]+", remark.group(2).split(" -")[0].strip())
        if remark.group(1) != _ALLOW or names == [""]:
            refuse(comment, "this comment allows nothing", "write it as // exequatur: allow RULE")
            continue
        if not at_policy:
            refuse(comment, "this comment is not at a policy", "put it above the policy that it is about")
            continue
        for name in filter(None, names):
            if name in may_be:
                allowed.add(name)
            elif name in RULES:
                refuse(comment, f"the rule {name} cannot be allowed", "correct what it finds, and remove the comment")
            else:
                refuse(comment, f"there is no rule {name[:MAX_NAME]}", did_you_mean(name, may_be))
    return allowed, wrong
