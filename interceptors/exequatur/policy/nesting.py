"""Texts that are nested so deeply that Cedar's recursive parser would end the process.

Cedar 4.12 overflows a stack of 8 MiB, and so kills whoever called it, at some 600 brackets in one another or a chain of
some 1,200 operators.

Rules:

D1  What is above these bounds is never given to it.
D2  What is below them is: no policy that people write is refused.
"""

from collections.abc import Iterable

from exequatur.policy.syntax import Token

#: Brackets in one another. No policy that people write has ten; Cedar itself refuses to show more than 100 levels.
MAX_BRACKETS = 100
#: Operators and attribute accesses in one condition, each of which may be a level.
MAX_LINKS = 800

_CLOSED_BY = {"(": ")", "[": "]", "{": "}", "<": ">"}
_CLOSING = frozenset(_CLOSED_BY.values())
_LINKS = frozenset({"&&", "||", "+", "-", "*", "!", "if", ".", "["})
_NEXT = frozenset({"when", "unless", ";"})


def too_deep(words: Iterable[Token]) -> Token | None:
    """Return the word at which a text is nested beyond the bounds, or None.

    Args:
        words: The words of policies or of a schema, well-formed or not.
    """
    open_: list[str] = []
    links = 0
    previous = ""
    for word in words:
        text = word.text
        # Elsewhere than in Set<…> this is a comparison.
        if text in _CLOSED_BY and (text != "<" or previous == "Set"):
            open_.append(_CLOSED_BY[text])
        elif text in _CLOSING:
            while open_ and open_[-1] == ">" != text:  # it was a comparison with something called Set
                open_.pop()
            if open_ and text == open_[-1]:
                open_.pop()
        # Inside of brackets `when` is the name of an attribute.
        links = 0 if text == ";" or (text in _NEXT and not open_) else links + (text in _LINKS)
        if len(open_) > MAX_BRACKETS or links > MAX_LINKS:  # [D1]
            return word
        previous = text
    return None
