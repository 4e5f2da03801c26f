"""The words of Cedar policies and schemas, and where in a text they stand.

Cedar's Python binding names no position with an error. A position is found with Cedar's own parser instead: the first
token up to which a text cannot be the beginning of anything is the one that the error is about.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

_WORDS = re.compile(
    r"(?P<blank>\s+|//[^\n\r]*)"
    r'|(?P<string>"(?:\\.|[^"\\])*")'
    r"|(?P<name>[^\W\d]\w*)"
    r"|(?P<number>\d+)"
    r"|(?P<sign>::|==|!=|<=|>=|&&|\|\||.)",
    re.DOTALL,
)
#: What Cedar says of a text that breaks off where more could have followed.
_UNFINISHED = "unexpected end of input"
_UNEXPECTED = re.compile(r"unexpected token `(.+?)`", re.DOTALL)
_QUOTES = re.compile(r'\\.|"|//', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u\{([0-9A-Fa-f]{1,6})\}|x([0-7][0-9A-Fa-f])|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "\\": "\\", '"': '"', "'": "'", "*": "*"}

Kind = Literal["string", "name", "number", "sign"]


@dataclass(frozen=True, slots=True)
class Token:
    """One word; ``start`` and ``end`` are offsets into the text."""

    kind: Kind
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column, both from 1; columns count characters."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Statement:
    """One policy: where it begins and ends, without white space and comments before it."""

    start: int
    end: int
    text: str


def tokens(text: str) -> list[Token]:
    """Split a Cedar text into words; white space and comments are left out.

    Args:
        text: Policies or a schema, well-formed or not.
    """
    return list(_scan(text))


def place_of(text: str, offset: int) -> Place:
    """Return line and column of an offset; one behind the text's end counts as its end."""
    offset = min(offset, len(text))
    return Place(text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


def statements(text: str) -> list[Statement]:
    """Split Cedar policies at their semicolons, outside of strings and comments.

    Args:
        text: Cedar policies, well-formed or not.

    Returns:
        The policies in order, the last one possibly without its semicolon.
    """
    found = []
    first: Token | None = None
    last = 0
    for token in _scan(text):
        first, last = first or token, token.end
        if token.text == ";":
            found.append(Statement(first.start, last, text[first.start : last]))
            first = None
    if first is not None:
        found.append(Statement(first.start, last, text[first.start : last]))
    return found


def parse_error_offset(text: str, parse: Callable[[str], object]) -> int | None:
    """Return where a text that Cedar cannot parse stops being Cedar.

    Args:
        text: Policies or a schema.
        parse: Cedar's parser, which raises ValueError.

    Returns:
        The offset of the offending word, or the end of the text if something is missing there; None if the error is not
        one of syntax, or if there is none.
    """
    message = _error(parse, text)
    if message is None:
        return None
    words = tokens(text)
    if _UNFINISHED in message:
        return words[-1].end if words else len(text)
    if "invalid token" in message:
        broken = bisect_left(words, True, key=lambda word: "invalid token" in (_error(parse, text[: word.end]) or ""))
        if broken == len(words):
            return None
        start = words[broken].start
        return unclosed_string(text[:start]) if words[broken].text == '"' and "\n" in text[:start] else start
    named = _UNEXPECTED.search(message)
    if named is None:
        return None
    candidates = [word for word in words if word.text == named.group(1)]
    for word in candidates:
        # Without the semicolon Cedar may only say that the beginning of the text is unfinished.
        if any(named.group() in (_error(parse, text[: word.end] + end) or "") for end in ("", ";")):
            return word.start
    return candidates[0].start if len(candidates) == 1 else None


def unclosed_string(text: str) -> int:
    """Return where the string begins that is probably not ended, before a quote that ends none.

    Strings hardly ever go over lines, so it is the last one of the first line with an odd number of quotes.

    Args:
        text: What stands before the quote.

    Returns:
        The offset of its quote; the text's end if no line has an odd number.
    """
    start = 0
    for line in text.splitlines(keepends=True):
        opened: int | None = None
        for match in _QUOTES.finditer(line):
            if match.group() == '"':
                opened = start + match.start() if opened is None else None
            elif match.group() == "//" and opened is None:
                break
        if opened is not None:
            return opened
        start += len(line)
    return len(text)


def unquoted(literal: str) -> str:
    """Return what a string literal of Cedar denotes; an escape that Cedar does not know stays as it is."""

    def value(match: re.Match[str]) -> str:
        code = match.group(1) or match.group(2)
        try:
            return chr(int(code, 16)) if code else _ESCAPED.get(match.group(3), match.group())
        except (ValueError, OverflowError):
            return match.group()

    return _ESCAPE.sub(value, literal[1:-1])


def quoted(text: str) -> str:
    """Return a text as a string literal of Cedar."""
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0", "\\": "\\\\", '"': '\\"'}
    return (
        '"' + "".join(named.get(char, char if char.isprintable() else f"\\u{{{ord(char):x}}}") for char in text) + '"'
    )


def find_words(words: Sequence[Token], wanted: Sequence[str]) -> Token | None:
    """Return the first of the tokens that begin the given run of words, or None."""
    size = len(wanted)
    for index in range(len(words) - size + 1):
        if all(word.text == text for word, text in zip(words[index : index + size], wanted, strict=True)):
            return words[index]
    return None


def _scan(text: str) -> Iterator[Token]:
    for match in _WORDS.finditer(text):
        kind: Any = match.lastgroup
        if kind != "blank":
            yield Token(kind, match.group(), match.start(), match.end())


def _error(parse: Callable[[str], object], text: str) -> str | None:
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return None
