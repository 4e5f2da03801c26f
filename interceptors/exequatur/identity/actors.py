"""Who acts for a principal: chains of actors (RFC 8693, section 4.1).

Rules, numbered as the code marks them:

A1  No more than :data:`MAX_ACTORS` act for one another.
A2  An actor inside a token is named by its ``sub``, and is of the token's own issuer. One that cannot be told makes the
    whole chain unknown.
A3  Where a token says who may act for its subject, nobody else may: every member of ``may_act`` is there in the
    actor's own token, and is exactly the same. An actor is of the issuer that ``may_act`` names, or else of the token's
    own: another issuer may call somebody by the same name. Issuer and subject are those that were verified, whatever
    the actor's token says besides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exequatur.errors import IdentityError
from exequatur.identity.principal import Principal
from exequatur.statements.encoding import compact_json
from exequatur.statements.models import Actor

if TYPE_CHECKING:
    from exequatur.identity.mapping import Rules
    from exequatur.identity.verifier import Claims

MAX_ACTORS = 8
"""A user through an agent through a service has two; more than this is a loop or an attack."""


def actor_of(names: Sequence[Principal | str]) -> Actor | None:
    """The chain of these actors, the one who acts now first; ``None`` if there is none.

    Raises:
        ValueError: There are more than :data:`MAX_ACTORS`, or one is not ``Type::"id"``.
    """
    if len(names) > MAX_ACTORS:
        raise ValueError(f"{len(names)} act for one another; {MAX_ACTORS} is the most")
    chain: Actor | None = None
    for name in reversed(names):
        chain = Actor(sub=str(Principal.parse(str(name))), act=chain)
    return chain


def names_of(actor: Actor | None) -> tuple[str, ...]:
    """The actors of a chain, the one who acts now first."""
    names = []
    while actor is not None:
        names.append(actor.sub)
        actor = actor.act
    return tuple(names)


def involved(principal: str, actor: Actor | None) -> frozenset[str]:
    """A principal and all who act for it: what one of them may not do any more, none of them may do for it."""
    return frozenset({principal, *names_of(actor)})


def acting_facts(actor: Actor | None) -> dict[str, Any]:
    """What policies are told of a chain, as a part of Cedar's context: nothing where nobody acts for the principal."""
    names = names_of(actor)
    return {"acting": {"by": names[0], "chain": list(names)}} if names else {}


def acts_in(claims: Claims, rules: Rules) -> list[Principal]:
    """Who a credential itself says acts for its subject (``act``), the one who acts now first.

    An actor is named by the same issuer, in the claims inside ``act``; the rules for actors make principals of them.

    Raises:
        IdentityError: A1, A2, or a rule of :mod:`exequatur.identity.mapping`.
    """
    found: list[Principal] = []
    inner = claims.values.get("act")
    while inner is not None:
        if not isinstance(inner, Mapping) or not isinstance(inner.get("sub"), str):  # [A2]
            raise IdentityError("A2", "The token's chain of actors (act) cannot be read")
        if len(found) == MAX_ACTORS:  # [A1]
            raise IdentityError("A1", f"More than {MAX_ACTORS} act for one another")
        if inner.get("iss", claims.issuer) != claims.issuer:  # [A2]
            raise IdentityError("A2", "The token names an actor of another issuer, which its own cannot vouch for")
        found.append(rules.named(claims.verifier, inner, "actor"))
        inner = inner.get("act")
    return found


def check_may_act(subject: Claims, actor: Claims) -> None:
    """A3: whether a subject's token lets this actor act (RFC 8693, section 4.4).

    Raises:
        IdentityError: It names somebody else.
    """
    if "may_act" not in subject.values:
        return
    named = subject.values["may_act"]
    due = {"iss": subject.issuer, **named} if isinstance(named, Mapping) and named else None
    there = {**actor.values, "iss": actor.issuer, "sub": actor.subject}
    # As JSON, where 1 is not true, and null is not what is left out.
    if due is None or any(each not in there or not _same(there[each], value) for each, value in due.items()):  # [A3]
        raise IdentityError("A3", "The token says that somebody else may act for its subject (may_act)")


def _same(one: Any, other: Any) -> bool:
    return compact_json(one) == compact_json(other)
