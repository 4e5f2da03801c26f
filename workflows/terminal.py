"""How the demo looks: headings, sentences and a table, coloured only where a terminal wants it."""

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence

_BOLD, _DIM, _RED, _GREEN = "1", "2", "31", "32"
_NARROWEST, _WIDEST = 80, 132


class Terminal:
    """Writes to standard output; no colour when it is no terminal, or when NO_COLOR is set (no-color.org)."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.width = min(max(shutil.get_terminal_size((120, 24)).columns, _NARROWEST), _WIDEST)

    def heading(self, text: str) -> None:
        self._print(f"\n{self._styled(text, _BOLD)}")

    def say(self, text: str) -> None:
        self._print(self._filled(text, "   ", "   "))

    def fact(self, text: str) -> None:
        """Something that was seen to happen."""
        self._print(self._styled(self._filled(text, "   > ", "     "), _DIM))

    def verdict(self, ok: bool) -> None:
        self._print(f"   {self._mark(ok)}")

    def plain(self, text: str = "") -> None:
        self._print(text)

    def table(self, titles: Sequence[str], rows: Sequence[tuple[Sequence[str], bool]]) -> None:
        """Columns as wide as their longest cell, wrapped where the terminal is narrower; the verdict comes last."""
        cells = [titles, *(row for row, _ in rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
        room = self.width - 2 * len(widths) - len("FAILED")
        while sum(widths) > room:
            widths[widths.index(max(widths))] -= 1
        rule = "  ".join("-" * width for width in [*widths, len("FAILED")])
        self._print(self._styled("  ".join(t.ljust(w) for t, w in zip(titles, widths, strict=True)).rstrip(), _BOLD))
        self._print(rule)
        for row, ok in rows:
            wrapped = [
                textwrap.wrap(cell, width, break_on_hyphens=False) for cell, width in zip(row, widths, strict=True)
            ]
            for line in range(max(map(len, wrapped))):
                parts = [
                    (lines[line] if line < len(lines) else "").ljust(width)
                    for lines, width in zip(wrapped, widths, strict=True)
                ]
                mark = self._mark(ok) if line == 0 else ""
                self._print("  ".join([*parts, mark]).rstrip())
        self._print(rule)

    def _mark(self, ok: bool) -> str:
        return self._styled("ok", _GREEN) if ok else self._styled("FAILED", _RED)

    def _filled(self, text: str, first: str, other: str) -> str:
        lines = textwrap.wrap(text, self.width - len(other), break_long_words=False, break_on_hyphens=False)
        return first + f"\n{other}".join(lines)

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._colour else text

    def _print(self, text: str) -> None:
        print(text, flush=True)
