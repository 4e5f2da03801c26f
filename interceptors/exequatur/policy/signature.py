"""The parameters of an activity, read once from its function."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from exequatur.policy.hints import Hint, hint_of, hinted_function, optional, resolved_hints


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an activity; ``default`` is ``inspect.Parameter.empty`` where there is none."""

    name: str
    hint: Hint
    default: Any


@dataclass(frozen=True, slots=True)
class ActivitySignature:
    """The parameters of an activity, as the policy sees them.

    Args:
        positional: Parameters that arguments are bound to, in order.
        rest: The name of ``*args``, whose values are kept as a list under that name, and the hint of one value.
        keyword_only: Parameters that only a default can fill, since Temporal passes arguments by position.
        known: False where Python cannot tell the parameters (some callables written in C).
    """

    positional: tuple[Parameter, ...] = ()
    rest: tuple[str, Hint] | None = None
    keyword_only: tuple[Parameter, ...] = ()
    known: bool = True

    @classmethod
    def of(cls, fn: Callable[..., Any]) -> "ActivitySignature":
        """Return the signature of a function, bound method, ``functools.partial`` or object with ``__call__``.

        Args:
            fn: The activity as it will be called; a bound ``self`` is no parameter.

        Returns:
            The signature; type hints that cannot be resolved count as not given.
        """
        try:
            parameters = list(inspect.signature(fn).parameters.values())
            hints = resolved_hints(hinted_function(fn))
        except Exception:
            return cls(known=False)
        positional: list[Parameter] = []
        keyword_only: list[Parameter] = []
        rest = None
        for item in parameters:
            hint = hint_of(hints.get(item.name, Any))
            if item.kind is inspect.Parameter.VAR_POSITIONAL:
                rest = (item.name, hint)
            elif item.kind is not inspect.Parameter.VAR_KEYWORD:
                target = keyword_only if item.kind is inspect.Parameter.KEYWORD_ONLY else positional
                target.append(Parameter(item.name, optional(hint) if item.default is None else hint, item.default))
        return cls(tuple(positional), rest, tuple(keyword_only))

    def filled(self, args: Sequence[Any]) -> list[Any]:
        """Return the arguments as the body gets them: those that were not given have their defaults."""
        values = list(args)
        for parameter in self.positional[len(values) :]:
            if parameter.default is inspect.Parameter.empty:
                break
            values.append(parameter.default)
        return values
