"""Texts with their words read once: lines, policies, and the comments that belong to each."""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from exequatur.policy.syntax import Place, Token, tokens

_COMMENT = re.compile(r"//[^\n\r]*")


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment with its two slashes; ``start`` is an offset into the text."""

    text: str
    start: int


class Text:
    """A file's text.

    Args:
        name: The file's name.
        text: Its content.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text

    @cached_property
    def words(self) -> list[Token]:
        """The words, as far as the text is Cedar."""
        return tokens(self.text)

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(match.end() for match in re.finditer("\n", self.text))]

    def place(self, offset: int) -> Place:
        """Return line and column of an offset; one behind the text's end counts as its end."""
        offset = max(0, min(offset, len(self.text)))
        line = bisect_right(self._starts, offset)
        return Place(line, offset - self._starts[line - 1] + 1)

    def offset(self, line: int, column: int) -> int:
        """Return the offset of a line and column, both from 1, or the nearest that there is."""
        start = self._starts[max(0, min(line, len(self._starts)) - 1)]
        return max(start, min(start + column - 1, self.line_end(start)))

    def line_end(self, offset: int) -> int:
        """Return the offset of the end of the line that an offset is on."""
        found = self.text.find("\n", offset)
        return len(self.text) if found < 0 else found

    def line(self, number: int) -> str:
        """Return a line, counted from 1, without its end."""
        start = self._starts[number - 1]
        return self.text[start : self.line_end(start)].rstrip("\r")


@dataclass(frozen=True, slots=True, eq=False)
class WrittenPolicy:
    """A policy as it is written.

    Args:
        file: The file.
        index: Its number in the bundle; Cedar calls it ``policy<index>``.
        words: Its words, the last one its semicolon.
        comments: Those above it, in it, and behind it on its last line.
    """

    file: Text
    index: int
    words: tuple[Token, ...]
    comments: list[Comment] = field(default_factory=list)

    @property
    def start(self) -> int:
        """Offset of its first word."""
        return self.words[0].start

    @property
    def end(self) -> int:
        """Offset behind its last word."""
        return self.words[-1].end

    @property
    def source(self) -> str:
        """Its text."""
        return self.file.text[self.start : self.end]


def written_policies(file: Text, first: int = 0) -> tuple[list[WrittenPolicy], list[Comment]]:
    """Split a file into policies at their semicolons.

    Args:
        file: Policies, well-formed or not.
        first: The first one's number.

    Returns:
        The policies, the last one possibly without its semicolon, and the comments behind them all.
    """
    found: list[WrittenPolicy] = []
    words: list[Token] = []
    waiting: list[Comment] = []
    end = 0
    for word in file.words:
        gap = list(_comments(file.text, end, word.start))
        if not words and found:
            line_end = file.line_end(end)
            found[-1].comments.extend(each for each in gap if each.start < line_end)
            gap = [each for each in gap if each.start >= line_end]
        waiting += gap
        words.append(word)
        end = word.end
        if word.text == ";":
            found.append(WrittenPolicy(file, first + len(found), tuple(words), waiting))
            words, waiting = [], []
    if words:
        found.append(WrittenPolicy(file, first + len(found), tuple(words), waiting))
        waiting = []
    rest = list(_comments(file.text, end, len(file.text)))
    if found:
        line_end = file.line_end(end)
        found[-1].comments.extend(each for each in rest if each.start < line_end)
        rest = [each for each in rest if each.start >= line_end]
    return found, rest


def _comments(text: str, start: int, end: int) -> Iterator[Comment]:
    """The comments between two words, where nothing else than white space is."""
    if end - start > 1:
        for match in _COMMENT.finditer(text, start, end):
            yield Comment(match.group().rstrip(), match.start())
