"""From what a credential claims to the Cedar principal, its attributes and parents: declarative, first rule that fits.

Rules, numbered as the code marks them:

M1  The first rule whose conditions all hold makes the principal. Where none does, the credential is refused.
M2  A claim that a condition names and that is not there, or is of another type, does not fulfil it.
M3  What is put into an entity's id is text or an integer, without quotes, backslashes, and characters that do not show
    or change the direction of the text, in normal form (NFC); nothing is escaped, changed or left out. What is not, is
    refused: an id that looks like another one is another person.
M4  A claim that a template, an attribute or parents require and that is not there refuses the credential. An optional
    one that is there and is of the wrong type refuses it, too.
M5  An attribute has the declared Cedar type exactly: no text is taken for a number, and no list for one value.
M6  No more than :data:`MAX_PARENTS` parents and :data:`MAX_TEXT` characters a value, so that a provider's answer cannot
    outgrow a grant.
M7  The path of a worker's SPIFFE id is one (SPIFFE-ID, section 2.2), and a claim fills no more than one segment of it,
    but for the path of a SPIFFE id that was verified.
M8  Where a template has several places, a claim does not contain what separates it from the next one: two credentials
    never run together into one name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from exequatur.errors import IdentityError
from exequatur.identity.principal import Principal
from exequatur.identity.spiffe_id import is_path
from exequatur.identity.verifier import Claims
from exequatur.statements.verification import matches

Path = tuple[str, ...]
AttributeType = Literal["String", "Long", "Bool", "Decimal", "Set<String>"]
Role = Literal["subject", "actor"]

MAX_PARENTS = 100
MAX_TEXT = 500
"""Characters of one value."""
SPIFFE_PATH = "spiffe_path"
"""The claim that the verifiers of SPIFFE credentials add."""
PLACE = re.compile(r"\{([^{}]+)\}")
"""A claim in a template."""
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories: controls, formats such as direction marks, surrogates, private and unassigned, separators."""
_LONG = range(-(2**63), 2**63)
_DECIMAL = re.compile(r"-?\d{1,14}(\.\d{1,4})?\Z", re.ASCII)


@dataclass(frozen=True)
class Condition:
    """What a claim has to be.

    Args:
        path: Of the claim.
        value: What it is; text is a pattern with ``*`` and ``?``.
        contains: A pattern that one element of a list fits.
    """

    path: Path
    value: str | int | bool | None = None
    contains: str | None = None

    def holds(self, claims: Mapping[str, Any]) -> bool:
        """M2."""
        found = at(claims, self.path)
        if self.contains is not None:
            return isinstance(found, list) and any(
                isinstance(each, str) and matches(each, [self.contains]) for each in found
            )
        if isinstance(self.value, str):
            return isinstance(found, str) and matches(found, [self.value])
        return type(found) is type(self.value) and found == self.value


@dataclass(frozen=True)
class AttributeRule:
    """One attribute of the principal."""

    path: Path
    type: AttributeType = "String"
    required: bool = False


@dataclass(frozen=True)
class ParentRule:
    """Parents of the principal.

    Args:
        template: Such as ``Role::"{each}"``; without ``{each}`` it makes one parent.
        path: Of the list whose elements ``{each}`` stands for.
        only: Patterns; elements that fit none of them are left out. Empty for all.
        required: Whether the claim has to be there.
        split: What separates the elements where the claim is one text, such as a space in ``scope``.
    """

    template: str
    path: Path | None = None
    only: tuple[str, ...] = ()
    required: bool = False
    split: str | None = None


@dataclass(frozen=True)
class PrincipalRule:
    """How one kind of credential becomes a principal.

    Args:
        principal: Template, such as ``User::"{sub}"``.
        verifier: Name of the verifier; ``None`` for any.
        conditions: What the claims have to be.
        attributes: By name.
        parents: What it belongs to.
        roles: Whether it is for who is spoken of, for who acts for somebody, or for both.
    """

    principal: str
    verifier: str | None = None
    conditions: tuple[Condition, ...] = ()
    attributes: Mapping[str, AttributeRule] | None = None
    parents: tuple[ParentRule, ...] = ()
    roles: tuple[Role, ...] = ("subject", "actor")

    def fits(self, verifier: str, values: Mapping[str, Any], role: Role) -> bool:
        """Whether the rule is for these claims."""
        if self.verifier not in (None, verifier) or role not in self.roles:
            return False
        return all(each.holds(values) for each in self.conditions)


@dataclass(frozen=True)
class Rules:
    """All rules, in their order."""

    rules: tuple[PrincipalRule, ...]

    def principal(self, claims: Claims, role: Role = "subject") -> Principal:
        """The principal that a verified credential stands for.

        Args:
            claims: What it says.
            role: Whether it is spoken of, or acts for somebody.

        Raises:
            IdentityError: M1, M3 to M6.
        """
        if claims.principal is not None:
            return claims.principal
        return self.named(claims.verifier, claims.values, role)

    def named(self, verifier: str, values: Mapping[str, Any], role: Role) -> Principal:
        """The principal of some claims of a verifier's.

        Raises:
            IdentityError: M1, M3 to M6.
        """
        rule = next((each for each in self.rules if each.fits(verifier, values, role)), None)
        if rule is None:  # [M1]
            raise IdentityError("M1", f"No rule of the identity configuration makes a principal of it ({verifier})")
        attributes = {
            name: value
            for name, each in (rule.attributes or {}).items()
            if (value := attribute(name, each, values)) is not None
        }
        parents = tuple(dict.fromkeys(parent for each in rule.parents for parent in parents_of(each, values)))
        if len(parents) > MAX_PARENTS:  # [M6]
            raise IdentityError("M6", f"The principal would have {len(parents)} parents; {MAX_PARENTS} is the most")
        named = entity(filled(rule.principal, values))
        return Principal(named.type, named.id, attributes, tuple(map(entity, parents)))


def at(values: Mapping[str, Any], path: Path) -> Any:
    """The claim at a path, or ``None``."""
    found: Any = values
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def path_of(text: str) -> Path:
    """The path that is written with dots, such as ``realm_access.roles``."""
    return tuple(text.split("."))


def filled(template: str, values: Mapping[str, Any], each: str | None = None) -> str:
    """A template with the claims in their places.

    Raises:
        IdentityError: M3, M4, M6, M8.
    """
    made, *rest = PLACE.split(template)
    for place in range(0, len(rest), 2):
        name, after = rest[place : place + 2]
        text = plain(name, each if name == "each" and each is not None else at(values, path_of(name)))
        if place + 2 < len(rest) and (text + after).index(after) < len(text):  # [M8]
            raise IdentityError(
                "M8", f"The claim {name} contains {after!r}, which separates it from the next; use another separator"
            )
        made += text + after
    return made


def places_in(template: str) -> Iterator[str]:
    """The names in a template's braces."""
    for place in PLACE.finditer(template):
        yield place[1]


def plain(name: str, value: Any) -> str:
    """A claim as part of an entity's id.

    Raises:
        IdentityError: M3, M4, M6.
    """
    if value is None:  # [M4]
        raise IdentityError("M4", f"The credential has no claim {name}, which its principal is named by")
    if isinstance(value, int) and not isinstance(value, bool) and value in _LONG:
        return str(value)
    if not isinstance(value, str) or not value:  # [M3]
        raise IdentityError("M3", f"The claim {name} is not text, and a principal cannot be named by it")
    return checked(name, value)


def checked(name: str, value: str) -> str:
    """M3 and M6.

    Raises:
        IdentityError: The text cannot be part of what the policies see.
    """
    if len(value) > MAX_TEXT:  # [M6]
        raise IdentityError("M6", f"The claim {name} has {len(value)} characters; {MAX_TEXT} is the most")
    if set(value) & set('"\\') or any(unicodedata.category(each) in _UNSEEN for each in value):  # [M3]
        raise IdentityError("M3", f"The claim {name} has a quote, a backslash or a character that does not show")
    if not unicodedata.is_normalized("NFC", value):  # [M3]
        raise IdentityError("M3", f"The claim {name} is not in Unicode's normal form (NFC)")
    return value


def entity(text: str) -> Principal:
    """A template's result as an entity."""
    try:
        return Principal.parse(text)
    except ValueError:
        raise IdentityError("M3", "A claim cannot be the id of an entity") from None


def attribute(name: str, rule: AttributeRule, values: Mapping[str, Any]) -> Any:
    """One attribute in Cedar's JSON form; ``None`` where it is absent.

    Raises:
        IdentityError: M4 to M6.
    """
    found = at(values, rule.path)
    if found is None:
        if rule.required:  # [M4]
            raise IdentityError("M4", f"The credential has no claim for the attribute {name}, which is required")
        return None
    match rule.type:
        case "String" if isinstance(found, str):
            return checked(name, found)
        case "Bool" if isinstance(found, bool):
            return found
        case "Long" if isinstance(found, int) and not isinstance(found, bool) and found in _LONG:
            return found
        case "Decimal" if (text := _decimal(found)) is not None:
            return {"__extn": {"fn": "decimal", "arg": text}}
        case "Set<String>" if isinstance(found, list) and all(isinstance(each, str) for each in found):
            if len(found) > MAX_PARENTS:  # [M6]
                raise IdentityError("M6", f"The attribute {name} would have {len(found)} elements")
            return [checked(name, each) for each in found]
    raise IdentityError("M5", f"The claim for the attribute {name} is not a {rule.type}")


def _decimal(value: Any) -> str | None:
    """Exactly what Cedar's decimal can say: up to four digits after the point."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = value if isinstance(value, str) else format(Decimal(repr(value)), "f")
    if not _DECIMAL.match(text):
        return None
    return text if "." in text else f"{text}.0"


def parents_of(rule: ParentRule, values: Mapping[str, Any]) -> Sequence[str]:
    """The parents that a rule gives.

    Raises:
        IdentityError: M3 to M6.
    """
    if rule.path is None:
        return (filled(rule.template, values),)
    found = at(values, rule.path)
    name = ".".join(rule.path)
    if found is None:
        if rule.required:  # [M4]
            raise IdentityError("M4", f"The credential has no claim {name}, which its parents are named by")
        return ()
    if isinstance(found, str) and rule.split is not None:
        found = [each for each in found.split(rule.split) if each]
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):  # [M5]
        raise IdentityError("M5", f"The claim {name} is not a list of texts, and parents cannot be named by it")
    wanted = [each for each in dict.fromkeys(found) if not rule.only or matches(each, rule.only)]
    return [filled(rule.template, values, each) for each in wanted]


@dataclass(frozen=True)
class WorkerRule:
    """Who may be a worker, and under which SPIFFE path.

    Args:
        path: Template of the path, such as ``payments/{sub}``; ``{spiffe_path}`` is that of a SPIFFE id.
        principal: Pattern that the principal of who asks fits, as ``Type::"id"``.
        verifier: Name of the verifier; ``None`` for any.
        conditions: What the claims have to be.
    """

    path: str
    principal: str = "*"
    verifier: str | None = None
    conditions: tuple[Condition, ...] = ()


def worker_path(rules: Sequence[WorkerRule], claims: Claims, principal: Principal) -> str | None:
    """The path of the SPIFFE id that a worker gets; ``None`` where who asks may not be one.

    Args:
        rules: In their order; the first that fits.
        claims: Of the credential that who asks showed.
        principal: Who asks.

    Raises:
        IdentityError: M4, M7.
    """
    for rule in rules:
        fits = rule.verifier in (None, claims.verifier) and matches(str(principal), [rule.principal])
        if not fits or not all(each.holds(claims.values) for each in rule.conditions):
            continue
        for name in places_in(rule.path):
            whole = name == SPIFFE_PATH and claims.workload is not None
            if not whole and "/" in plain(name, at(claims.values, path_of(name))):  # [M7]
                raise IdentityError(
                    "M7", f"The claim {name} has a slash, and would be several segments of a worker's id"
                )
        path = filled(rule.path, claims.values)
        if not is_path(path):  # [M7]
            raise IdentityError("M7", "The path of the worker's SPIFFE id would have a character that it may not have")
        return path
    return None
