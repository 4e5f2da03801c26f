"""The exceptions that are raised outside a workflow or an activity.

What an activity or a workflow fails with is in :mod:`exequatur.failures`. Nothing here imports Temporal, so that
``statements`` and ``policy`` can be used by themselves.
"""


class ExequaturError(Exception):
    """Base of every exception that this package raises on its own behalf."""


class ConfigurationError(ExequaturError):
    """A setting, a key file or the way the plugin is registered cannot work; the message names it and the next step."""


class PolicyError(ExequaturError):
    """A policy bundle was refused; the message names the file, and the line where Cedar gives one."""


class StatementError(ExequaturError):
    """A signed statement was refused.

    Args:
        rule: The number of the broken rule as listed at the head of the verifying module, for example ``"V4"``.
        reason: One sentence without a secret and without a payload.
    """

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(f"{reason} [{rule}]")
        self.rule = rule
        self.reason = reason


class UnknownKeyError(StatementError):
    """The key that a statement names is not in the trust store. It may be added later, so this is not yet a verdict."""


class JournalError(ExequaturError):
    """The evidence journal cannot be written or read; nothing may be authorized until it can."""


class ReplayedRequestError(ExequaturError):
    """The same request was already used for the same run and attempt."""


class RepeatedRequestError(ReplayedRequestError):
    """It was, and Temporal has scheduled that attempt once more since then: the activity was reset."""


class UndecidedError(ExequaturError):
    """What a workflow asks for cannot be decided or recorded now; its task fails and is tried again."""


class ChallengeError(ExequaturError):
    """What a run waits for cannot be listed, found or answered; the message names the next step."""


class EvidenceError(ExequaturError):
    """Evidence is malformed, inconsistent or cannot be read."""


class StoreUnavailableError(EvidenceError):
    """The evidence store cannot be reached, read or written now; of the evidence itself this says nothing."""
