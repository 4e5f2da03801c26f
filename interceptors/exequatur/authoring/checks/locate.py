"""Where in a policy a message of Cedar points.

Cedar's Python binding names no position with a message, but most messages repeat the words that they are about. Where a
message repeats none, or the words stand there more than once, Cedar is asked again with only the first conditions: the
first one with which it complains is the one that it means.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from exequatur.policy.syntax import Token, unquoted

Span = tuple[int, int]
"""Offsets of the first character and behind the last one."""

#: Conditions with which Cedar is asked again; more only cost time.
MAX_CONDITIONS = 100

_ATTRIBUTE = re.compile(r"attribute `(.+?)` (?:in|on)\b", re.DOTALL)
_ACTION = re.compile(r'unrecognized action `(.+)"`', re.DOTALL)
_KIND = re.compile(r"unrecognized entity type `([\w:]+)`")
_ENUMERATED = re.compile(r"entity `.+::(\".*\")` is of an enumerated", re.DOTALL)
_LITERAL = re.compile(r"failed to parse as an? [\w ]+ value: `(\".*?\")`", re.DOTALL)
_CALLED = re.compile(
    r"`(\w+)` (?:is not a valid (?:function|method)|is a method|is a function)|unction `(\w+)` expects"
)
_CALL_TO = re.compile(r"call to `(\w+)`")
_VARIABLE = re.compile(r"invalid variable: (\w+)|found the variable `(\w+)`")
_AT_END = re.compile(r"(?:policy effect|policy condition|cannot be used|element in the scope|operation): (\S+)$")
_ESCAPE = re.compile(r"the input `(.+)` is not a valid escape", re.DOTALL)
_ANNOTATION = re.compile(r"duplicate annotation: @(\w+)")
_KEY = re.compile(r"duplicate key `(.+)` in record")
_FOUND = re.compile(r"(?:got|found)(?: name)? `?([^`]+)`?$", re.DOTALL)
_EMPTY_CLAUSE = re.compile(r"`(when|unless)` condition clause cannot be empty")
_MEMBERS = re.compile(r'\["((?:\\.|[^"\\])*)"\]|([^.\[\]]+)', re.DOTALL)
_RELATIONS = frozenset({"==", "!=", "<", "<=", ">", ">=", "in", "like", "has", "is"})
_BOUNDARIES = frozenset({"&&", "||", "(", ")", "{", "}", "[", "]", ",", ";", "then", "else", "if"})
_EXTENSIONS = frozenset({"decimal", "ip", "datetime", "duration"})
_LARGEST = 2**63 - 1
_OPEN, _CLOSE = frozenset("([{"), frozenset(")]}")


@dataclass(frozen=True, slots=True)
class Access:
    """An attribute access such as ``context.args.amount``.

    Args:
        path: The names, the variable or entity type first.
        words: The word of each name.
    """

    path: tuple[str, ...]
    words: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """One of the conditions of a ``when`` or ``unless`` that must all be met.

    Args:
        words: Its words.
        clause: The number of its clause.
    """

    words: tuple[Token, ...]
    clause: int

    @property
    def span(self) -> Span:
        """Where it stands."""
        return self.words[0].start, self.words[-1].end


def locate(words: Sequence[Token], text: str, message: str, complains: Callable[[str], bool]) -> Span:
    """Return the place in a policy that a message is about.

    Args:
        words: The policy's words.
        text: The text that they are offsets into.
        message: What Cedar says of the policy.
        complains: Whether Cedar says the same of another policy.

    Returns:
        The place; the policy's first word if nothing better is known.
    """
    found = spans_of(words, message)
    if len(found) == 1:
        return found[0]
    condition = _first_refused(words, text, complains)
    if condition is not None:
        inside = spans_of(condition.words, message)
        return inside[0] if inside else condition.span
    return found[0] if found else _effect(words)


def spans_of(words: Sequence[Token], message: str) -> list[Span]:
    """Return every place in a policy, or in a part of one, whose words a message repeats."""
    return [(first.start, last.end) for first, last in _words_of(words, message)]


def accesses(words: Sequence[Token]) -> Iterator[Access]:
    """Yield the attribute accesses of a policy, each with its longest path."""
    for index, word in enumerate(words):
        before = words[index - 1].text if index else ""
        if before in (".", "::") and word.kind == "name":
            continue
        if word.kind != "name" and not (word.kind == "string" and before == "::"):
            continue
        path, found = [word.text], [word]
        at = index + 1
        while at + 1 < len(words):
            sign, name = words[at], words[at + 1]
            after = words[at + 2].text if at + 2 < len(words) else ""
            if sign.text == "." and name.kind == "name" and after != "(":
                path.append(name.text)
                at += 2
            elif sign.text == "[" and name.kind == "string" and after == "]":
                path.append(unquoted(name.text))
                at += 3
            else:
                break
            found.append(name)
        if len(path) > 1:
            yield Access(tuple(path), tuple(found))


def conditions(words: Sequence[Token]) -> list[Condition]:
    """Split a policy's clauses into conditions, in the order of :func:`exequatur.authoring.expression.parts_of`.

    Args:
        words: The words of a policy that Cedar can parse.
    """
    found: list[Condition] = []
    for number, (keyword, inner) in enumerate(_clauses(words)):
        found += [Condition(tuple(piece), number) for piece in _split(inner, "||" if keyword == "unless" else "&&")]
    return found


def annotation(words: Sequence[Token], name: str) -> Span | None:
    """Return where the value of an annotation stands, or its name if it has no value."""
    for index, word in enumerate(words[:-1]):
        if word.text in ("permit", "forbid") and word.kind == "name" and words[index - 1].text != "@":
            return None
        if word.text == "@" and words[index + 1].text == name:
            valued = index + 3 < len(words) and words[index + 3].kind == "string"
            last = words[index + 3] if valued else words[index + 1]
            return last.start, last.end
    return None


def _words_of(words: Sequence[Token], message: str) -> list[tuple[Token, Token]]:
    if match := _ATTRIBUTE.search(message):
        return _attribute(words, match.group(1), in_context="in context" in message)
    if match := _ACTION.search(message) or _ENUMERATED.search(message) or _LITERAL.search(message):
        literal = unquoted('"' + match.group(1).partition('::"')[2] + '"') if match.re is _ACTION else None
        wanted = unquoted(match.group(1)) if literal is None else literal
        return [(word, word) for word in words if word.kind == "string" and unquoted(word.text) == wanted]
    if match := _KIND.search(message):
        return _run(words, re.findall(r"::|\w+", match.group(1)))
    if "non-literal" in message:
        return [(words[i], words[i]) for i in _calls(words, _EXTENSIONS) if not _literal_call(words, i)]
    if match := _CALLED.search(message) or _CALL_TO.search(message):
        return [(words[i], words[i]) for i in _calls(words, {next(filter(None, match.groups()))})]
    if match := _VARIABLE.search(message):
        name = next(filter(None, match.groups()))
        return [(each, each) for i, each in enumerate(words) if each.text == name and words[i - 1].text != "."]
    if match := _ESCAPE.search(message):
        return [(each, each) for each in words if each.kind == "string" and match.group(1) in each.text]
    if match := _ANNOTATION.search(message):
        return _run(words, ["@", match.group(1)])[1:2]
    if match := _KEY.search(message):
        wanted = unquoted(f'"{match.group(1)}"')
        return [(a, a) for a, b in pairwise(words) if b.text == ":" and _name(a) == wanted][1:]
    if match := _EMPTY_CLAUSE.search(message):
        return [_ends(each) for each in _runs(words, [match.group(1), "{", "}"])]
    if "integer parse error" in message:
        return [(each, each) for each in words if each.kind == "number" and _too_large(each.text)]
    if "multiple relational operators" in message:
        return _second_relations(words)
    if "empty set literals" in message:
        return [_ends(each) for each in _runs(words, ["[", "]"])]
    if "too many occurrences" in message:
        return [(each[-1], each[-1]) for each in _runs(words, ["!"] * 5)] or [
            (each[-1], each[-1]) for each in _runs(words, ["-"] * 5)
        ]
    for signs in ("/", "%", "="):
        if {"/": "division", "%": "remainder", "=": "'='"}[signs] in message:
            return [(each, each) for each in words if each.text == signs]
    if "found template slot" in message or "found ?" in message:
        return [(a, b) for a, b in pairwise(words) if a.text == "?"]
    if "found set of entity uids" in message:
        return [(each, each) for each in words if each.text == "["][:1]
    if "`is` cannot appear" in message:
        return [(each, each) for each in words if each.text == "is"]
    if match := _AT_END.search(message) or _FOUND.search(message):
        return _run(words, re.findall(r'"(?:\\.|[^"\\])*"|::|\w+|[^\w\s]', match.group(1)))
    return []


def _attribute(words: Sequence[Token], written: str, *, in_context: bool) -> list[tuple[Token, Token]]:
    names = tuple(
        unquoted(f'"{quoted}"') if quoted is not None and plain is None else plain
        for quoted, plain in ((m.group(1), m.group(2)) for m in _MEMBERS.finditer(written))
    )
    found = []
    for access in accesses(words):
        starts = [1] if in_context and access.path[0] == "context" else [] if in_context else range(1, len(access.path))
        for start in starts:
            if access.path[start : start + len(names)] == names:
                word = access.words[start + len(names) - 1]
                found.append((word, word))
                break
    return found


def _run(words: Sequence[Token], wanted: Sequence[str]) -> list[tuple[Token, Token]]:
    return [_ends(each) for each in _runs(words, wanted)] if wanted else []


def _runs(words: Sequence[Token], wanted: Sequence[str]) -> Iterator[Sequence[Token]]:
    size = len(wanted)
    for index in range(len(words) - size + 1):
        if all(words[index + i].text == text for i, text in enumerate(wanted)):
            yield words[index : index + size]


def _ends(words: Sequence[Token]) -> tuple[Token, Token]:
    return words[0], words[-1]


def _calls(words: Sequence[Token], names: frozenset[str] | set[str]) -> Iterator[int]:
    for index, word in enumerate(words[:-1]):
        if word.text in names and word.kind == "name" and words[index + 1].text == "(":
            yield index


def _literal_call(words: Sequence[Token], index: int) -> bool:
    inside = words[index + 2 : index + 4]
    return len(inside) == 2 and inside[0].kind == "string" and inside[1].text == ")"


def _name(word: Token) -> str:
    return unquoted(word.text) if word.kind == "string" else word.text


def _too_large(digits: str) -> bool:
    return len(digits) > len(str(_LARGEST)) or int(digits) > _LARGEST


def _second_relations(words: Sequence[Token]) -> list[tuple[Token, Token]]:
    found = []
    seen = [False]
    for word in words:
        if word.text in _OPEN:
            seen.append(False)
        elif word.text in _CLOSE:
            if len(seen) > 1:
                seen.pop()
        elif word.text in _BOUNDARIES:
            seen[-1] = False
        elif word.text in _RELATIONS and word.kind != "string":
            if seen[-1]:
                found.append((word, word))
            seen[-1] = True
    return found


def _clauses(words: Sequence[Token]) -> Iterator[tuple[str, Sequence[Token]]]:
    """Keyword and inner words of each clause."""
    depth = first = 0
    keyword = ""
    for index, word in enumerate(words):
        if word.text in _OPEN:
            if depth == 0 and word.text == "{":
                keyword, first = words[index - 1].text if index else "", index + 1
            depth += 1
        elif word.text in _CLOSE:
            depth -= 1
            if depth == 0 and word.text == "}" and keyword in ("when", "unless") and index > first:
                yield keyword, words[first:index]


def _split(words: Sequence[Token], connective: str) -> list[Sequence[Token]]:
    """Split at a connective outside of brackets; parentheses around all of it are taken off first."""
    while len(words) > 2 and words[0].text == "(" and _closing(words) == len(words) - 1:
        words = words[1:-1]
    pieces: list[Sequence[Token]] = []
    depth = first = 0
    for index, word in enumerate(words):
        depth += (word.text in _OPEN) - (word.text in _CLOSE)
        if depth == 0 and connective == "&&" and word.text == "||":
            return [words]
        if depth == 0 and word.text == connective:
            pieces.append(words[first:index])
            first = index + 1
    if words[0].text == "if" or not pieces:
        return [words] * (1 if connective == "||" else _dotted_has(words))
    pieces.append(words[first:])
    return [part for piece in pieces if piece for part in _split(piece, connective)]


def _dotted_has(words: Sequence[Token]) -> int:
    """How many conditions Cedar makes of one: ``a has b.c`` is ``a has b && a.b has c``."""
    depth = 0
    for index, word in enumerate(words):
        depth += (word.text in _OPEN) - (word.text in _CLOSE)
        if depth == 0 and word.text == "has" and (index == 0 or words[index - 1].text != "."):
            tail = [each.text for each in words[index + 1 :]]
            return 1 + tail.count(".") if words[0].text != "if" else 1
    return 1


def _closing(words: Sequence[Token]) -> int:
    depth = 0
    for index, word in enumerate(words):
        depth += (word.text in _OPEN) - (word.text in _CLOSE)
        if depth == 0:
            return index
    return -1


def _first_refused(words: Sequence[Token], text: str, complains: Callable[[str], bool]) -> Condition | None:
    """The first condition that, with those before it, is complained about."""
    found = conditions(words)[:MAX_CONDITIONS]
    clauses = list(_clauses(words))
    if not found:
        return None
    scope = text[words[0].start : _clause_start(words)]
    if complains(f"{scope};"):
        return None
    for last, condition in enumerate(found):
        tried = scope
        for number, (keyword, _) in enumerate(clauses[: condition.clause + 1]):
            connective = " || " if keyword == "unless" else " && "
            parts = [f"({text[each.span[0] : each.span[1]]})" for each in found[: last + 1] if each.clause == number]
            tried += f" {keyword} {{ {connective.join(parts)} }}"
        if complains(f"{tried};"):
            return condition
    return None


def _effect(words: Sequence[Token]) -> Span:
    """The word behind the annotations."""
    index = 0
    while index + 1 < len(words) and words[index].text == "@":
        index += 5 if index + 2 < len(words) and words[index + 2].text == "(" else 2
    word = words[min(index, len(words) - 1)]
    return word.start, word.end


def _clause_start(words: Sequence[Token]) -> int:
    """Offset of the first clause's keyword."""
    for index, word in enumerate(words[:-1]):
        if word.text in ("when", "unless") and words[index + 1].text == "{":
            return word.start
    return words[-1].start
