"""The Temporal failure types that activities and workflows end with (DESIGN section 1).

Each is an ``ApplicationError`` whose ``type`` is the class name, so that workflow code in any language can tell them
apart. ``details[0]`` is a mapping that says on whose behalf, which policies, and carries the signed receipt.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar

from temporalio.exceptions import ApplicationError


class AuthorizationFailure(ApplicationError):
    """Base of the failures below."""

    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        details: Mapping[str, Any] | None = None,
        *,
        next_retry_delay: timedelta | None = None,
    ) -> None:
        super().__init__(
            message,
            *([dict(details)] if details else []),
            type=type(self).__name__,
            non_retryable=not self.retryable,
            next_retry_delay=next_retry_delay,
        )


class AuthorizationDenied(AuthorizationFailure):
    """Cedar denied, Cedar reported an error, or a value that a policy reads has no Cedar form."""


class GrantRejected(AuthorizationFailure):
    """A grant, delegation or request is missing, malformed, forged, wrongly bound, replayed or expired."""


class AuthorizationChallenge(AuthorizationFailure):
    """People would have to agree, or the run's grant was renewed: the run's own worker answers it and asks again.

    ``details[0]`` holds the signed ``challenge`` besides, or the new grant as ``renewal``. Workflow code does not meet
    it: what cannot be answered is raised there as :class:`AuthorizationDenied`.
    """


class AuthorizationUnavailable(AuthorizationFailure):
    """Authorization could not be decided in time; another worker, or this one later, may be able to."""

    retryable = True


class AuthorizationRevoked(AuthorizationFailure):
    """The authorization ended while the activity was running."""


class ReceiptRejected(AuthorizationFailure):
    """An activity's result came without a valid receipt; raised where the workflow awaits it."""


FAILURE_TYPES: frozenset[str] = frozenset(
    cls.__name__
    for cls in (
        AuthorizationDenied,
        GrantRejected,
        AuthorizationChallenge,
        AuthorizationUnavailable,
        AuthorizationRevoked,
        ReceiptRejected,
    )
)
