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
    """The key that a statement names is not in the trust store. It may be added later, so this is not yet a verdict.

    Args:
        pending: Whether the anchors are being read anew, and the key may be among them.
    """

    def __init__(self, rule: str, reason: str, *, pending: bool = False) -> None:
        super().__init__(rule, reason)
        self.pending = pending


class SigningError(ExequaturError):
    """A key cannot sign now: there is none for the role, or what holds it does not answer. Nothing was signed."""


class IdentityError(ExequaturError):
    """A credential was refused, or no principal stands for it.

    Args:
        rule: The number of the broken rule as listed at the head of the verifying module, for example ``"O8"``.
        reason: One sentence without the token and without a claim's value.
    """

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(f"{reason} [{rule}]")
        self.rule = rule
        self.reason = reason


class IdentityUnavailableError(ExequaturError):
    """Whether a credential is to be believed cannot be found out now: keys cannot be fetched, or a file not be read."""


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


class RevocationFeedError(ExequaturError):
    """The revocation feed cannot be read, believed or written now; what it may say is not known."""


class FeedUnreachableError(RevocationFeedError):
    """The revocation feed cannot be reached now. What was last known stays known until it is too old."""


class IntegrityError(ExequaturError):
    """This worker is not what its signed manifest says; the message names what differs."""


class UnreadableError(ExequaturError):
    """Something that is to be measured cannot be read now; of what it holds this says nothing."""


class EvidenceError(ExequaturError):
    """Evidence is malformed, inconsistent or cannot be read."""


class StoreUnavailableError(EvidenceError):
    """The evidence store cannot be reached, read or written now; of the evidence itself this says nothing."""
