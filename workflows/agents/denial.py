"""What an agent is told when a policy says no to one of its tool calls."""

from exequatur import AuthorizationDenied, refusal_of


def denial(error: BaseException) -> str | None:
    """The sentence of a denial, for a model to reason about.

    Only a policy's no is for the model. A revoked grant, a forged result or a broken tool is not: these end the run.

    Args:
        error: What a tool's activity failed with.

    Returns:
        Who may not do what, by which policy and why; ``None`` when it failed for another reason.
    """
    refusal = refusal_of(error)
    return refusal.message if refusal is not None and refusal.type == AuthorizationDenied.__name__ else None
