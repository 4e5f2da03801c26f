"""The identity configuration of an authority: a TOML file with verifiers, rules for principals, and rules for workers.

.. code-block:: toml

    [[verifier]]
    name = "corp"
    kind = "oidc"
    issuer = "https://login.example.com"
    audience = ["exequatur"]
    jwks = "https://login.example.com/keys"

    [[principal]]
    match = { email_verified = true }
    principal = 'User::"{email}"'
    parents = [{ each = "groups", as = 'Role::"{each}"', only = ["ops-*"] }]

    [[workload]]
    principal = 'Service::"*"'
    path = "payments/{sub}"

Rules, numbered as the code marks them:

F1  A member that is not known is an error: a misspelt condition must not be no condition.
F2  Files are named relative to the configuration's folder.
F3  Each template, pattern and verifier that a rule names is checked when the file is read.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from exequatur.errors import ConfigurationError
from exequatur.identity.callers import Callers
from exequatur.identity.documents import FileSource, Kept, Source, WebSource, read_bounded
from exequatur.identity.local import LocalVerifier
from exequatur.identity.mapping import (
    PLACE,
    AttributeRule,
    AttributeType,
    Condition,
    ParentRule,
    Path,
    PrincipalRule,
    Role,
    Rules,
    WorkerRule,
    path_of,
    places_in,
)
from exequatur.identity.principal import Principal
from exequatur.identity.spiffe_id import is_path, is_trust_domain
from exequatur.identity.verifier import CertificateVerifier, Verifier, Verifiers
from exequatur.settings import Duration, Interval

MAX_BYTES = 1 << 20
_FORM = re.compile(r"constrained-str|bool|int|str|_.*|.*\[.*")
"""What a value may be, among the places that Pydantic names."""

T = TypeVar("T")

Text = Annotated[str, Field(min_length=1, max_length=2000)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
ClaimPath = Text | Annotated[list[Text], Field(min_length=1, max_length=16)]
"""``"realm_access.roles"``, or a list of names where a name itself has a dot."""
Leeway = Annotated[Duration, Field(le=timedelta(minutes=10))]
"""Far less than the hour for which the authority service remembers a token beyond its end."""
Several = Text | Annotated[list[Text], Field(min_length=1, max_length=64)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class _Fetched(_Table):
    """What is the same for all documents that are fetched."""

    loopback: bool = False
    """Whether ``http`` may be asked on this very machine."""
    refresh: Interval = timedelta(minutes=5)
    stale: Duration = timedelta(hours=1)
    cooldown: Interval = timedelta(seconds=5)


class _Oidc(_Fetched):
    name: Name
    kind: Literal["oidc"]
    issuer: Text
    audience: Several
    jwks: Text | None = None
    """URL or file; without it, OpenID discovery finds it."""
    algorithms: list[Text] | None = None
    leeway: Leeway = timedelta(seconds=30)
    max_lifetime: Interval | None = None
    required: list[Text] = []
    type: Text | None = None
    token_types: list[Literal["jwt", "access_token", "id_token"]] | None = None
    clients: list[Text] = []
    single_use: bool = False


class _JwtSvid(_Fetched):
    name: Name
    kind: Literal["jwt-svid"]
    trust_domain: Text
    audience: Several
    bundle: Text
    leeway: Leeway = timedelta(seconds=30)
    max_lifetime: Interval | None = None


class _X509Svid(_Fetched):
    name: Name
    kind: Literal["x509-svid"]
    trust_domain: Text
    bundle: Text
    """A SPIFFE bundle by URL or file, or a PEM file."""


class _Mtls(_Fetched):
    name: Name
    kind: Literal["mtls"]
    authorities: Text
    """A PEM file."""
    subject: Literal["uri", "dns", "email"] = "uri"


class _Local(_Table):
    name: Name
    kind: Literal["local"]


_Verifier = Annotated[_Oidc | _JwtSvid | _X509Svid | _Mtls | _Local, Field(discriminator="kind")]


class _Contains(_Table):
    contains: Text


class _Match(_Table):
    verifier: Name | None = None
    match: dict[Text, bool | int | str | _Contains] = {}
    match_paths: list[_PathMatch] = []

    def conditions(self) -> tuple[Condition, ...]:
        pairs = [(path_of(name), each) for name, each in self.match.items()]
        pairs += [(tuple(each.path), each.value) for each in self.match_paths]
        return tuple(
            Condition(path, contains=value.contains) if isinstance(value, _Contains) else Condition(path, value)
            for path, value in pairs
        )


class _PathMatch(_Table):
    """A condition on a claim whose name has a dot."""

    path: Annotated[list[Text], Field(min_length=1, max_length=16)]
    value: bool | int | str | _Contains


class _Attribute(_Table):
    claim: ClaimPath
    type: AttributeType = "String"
    required: bool = False


class _Parent(_Table):
    as_: Text = Field(alias="as")
    each: ClaimPath | None = None
    only: list[Text] = []
    required: bool = False
    split: Text | None = None

    @model_validator(mode="after")
    def _fits(self) -> _Parent:
        if (self.each is None) == ("each" in places_in(self.as_)):
            raise ValueError("each and {each} go together")
        if self.each is None and (self.only or self.required or self.split):
            raise ValueError("only, required and split go with each")
        return self


class _Principal(_Match):
    principal: Text
    attributes: dict[Text, Text | _Attribute] = {}
    parents: list[Text | _Parent] = []
    of: list[Role] = ["subject", "actor"]


class _Workload(_Match):
    path: Text
    principal: Text = "*"


class _File(_Table):
    verifier: Annotated[list[_Verifier], Field(min_length=1, max_length=64)]
    principal: Annotated[list[_Principal], Field(max_length=1000)] = []
    workload: Annotated[list[_Workload], Field(max_length=1000)] = []


_Match.model_rebuild()
_Principal.model_rebuild()
_Workload.model_rebuild()
_File.model_rebuild()


def read_identity(path: FilePath) -> Callers:
    """Read an identity configuration.

    Args:
        path: The TOML file.

    Raises:
        ConfigurationError: It cannot be used; the message names the place and the next step.
    """
    try:
        data, _ = read_bounded(path, MAX_BYTES)
        document = tomllib.loads(data.decode())
    except OSError as err:
        raise ConfigurationError(f"{path}: {err.strerror or err}") from err
    except (ValueError, RecursionError) as err:
        raise ConfigurationError(f"{path} is not TOML in UTF-8: {str(err)[:200]}") from err
    return identity_of(document, path.parent, str(path))


def identity_of(document: Mapping[str, Any], folder: FilePath, name: str) -> Callers:
    """Make an identity configuration of what a TOML file says.

    Args:
        document: The file as Python values.
        folder: What file names are relative to.
        name: What errors call it.

    Raises:
        ConfigurationError: It cannot be used.
    """
    try:
        read = _File.model_validate(document)
    except ValidationError as err:
        # Of all forms that a value might have had, the one that it came closest to.
        errors = err.errors(include_input=False, include_url=False)
        first = max(errors, key=lambda each: (each["type"] == "value_error", len(each["loc"])))
        where = ".".join(str(each) for each in first["loc"] if not _FORM.fullmatch(str(each)))[:200] or "the file"
        raise ConfigurationError(f"{name}: {where}: {first['msg']}") from None
    try:
        tokens: list[Verifier] = []
        certificates: list[CertificateVerifier] = []
        for each in read.verifier:
            _add(each, folder, tokens, certificates)
        verifiers = Verifiers(tokens, certificates)
        rules = Rules(tuple(_principal(each, verifiers.names) for each in read.principal))
        workers = tuple(_worker(each, verifiers.names) for each in read.workload)
    except ConfigurationError as err:
        raise ConfigurationError(f"{name}: {err}") from err
    if not rules.rules and any(each.kind != "local" for each in read.verifier):
        raise ConfigurationError(f"{name}: no [[principal]] says whom a credential stands for")
    return Callers(verifiers, rules, workers, any(each.kind == "local" for each in read.verifier))


def _add(
    table: _Oidc | _JwtSvid | _X509Svid | _Mtls | _Local,
    folder: FilePath,
    tokens: list[Verifier],
    certificates: list[CertificateVerifier],
) -> None:
    """One verifier. What only some of them need is imported with them."""
    match table:
        case _Oidc():
            tokens.append(_oidc(table, folder))
        case _JwtSvid():
            from exequatur.identity.jwks import IssuerKeys, keys_in
            from exequatur.identity.spiffe import JwtSvidVerifier

            kept = _kept(table, _source(table.bundle, folder, table.loopback), lambda data: keys_in(data, "jwt-svid"))
            tokens.append(
                JwtSvidVerifier(
                    table.name,
                    _domain(table.trust_domain),
                    _several(table.audience),
                    IssuerKeys(kept),
                    table.leeway.total_seconds(),
                    None if table.max_lifetime is None else table.max_lifetime.total_seconds(),
                )
            )
        case _X509Svid():
            from exequatur.identity.certificates import authorities_in
            from exequatur.identity.spiffe import X509SvidVerifier

            authorities = _kept(table, _source(table.bundle, folder, table.loopback), authorities_in)
            certificates.append(X509SvidVerifier(table.name, _domain(table.trust_domain), authorities))
        case _Mtls():
            from exequatur.identity.certificates import authorities_in_pem
            from exequatur.identity.mtls import MtlsVerifier

            trusted = _kept(table, _source(table.authorities, folder, table.loopback), authorities_in_pem)
            certificates.append(MtlsVerifier(table.name, trusted, table.subject))
        case _Local():
            tokens.append(LocalVerifier(table.name))


def _oidc(table: _Oidc, folder: FilePath) -> Verifier:
    from exequatur.identity.jwks import DiscoveredSource, IssuerKeys, keys_in
    from exequatur.identity.oidc import DEFAULT_ALGORITHMS, TOKEN_TYPES, OidcVerifier

    source: Source = (
        DiscoveredSource(table.issuer, loopback=table.loopback)
        if table.jwks is None
        else _source(table.jwks, folder, table.loopback)
    )
    return OidcVerifier(
        name=table.name,
        issuer=table.issuer,
        audiences=_several(table.audience),
        keys=IssuerKeys(_kept(table, source, keys_in)),
        algorithms=DEFAULT_ALGORITHMS if table.algorithms is None else tuple(table.algorithms),
        leeway=table.leeway.total_seconds(),
        max_lifetime=None if table.max_lifetime is None else table.max_lifetime.total_seconds(),
        required=tuple(table.required),
        type=table.type,
        token_types=tuple(TOKEN_TYPES[each] for each in table.token_types or TOKEN_TYPES),
        clients=tuple(table.clients),
        once=table.single_use,
    )


def _source(place: str, folder: FilePath, loopback: bool) -> Source:
    """F2."""
    if "://" in place:
        return WebSource(place, loopback=loopback)
    return FileSource(folder / place)  # [F2]


def _kept(table: _Fetched, source: Source, make: Any) -> Kept[Any]:
    return Kept(
        source,
        make,
        lifetime=table.refresh.total_seconds(),
        stale=table.stale.total_seconds(),
        cooldown=table.cooldown.total_seconds(),
    )


def _several(given: str | list[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _domain(name: str) -> str:
    if not is_trust_domain(name):
        raise ConfigurationError(f"{name!r} is not the name of a SPIFFE trust domain; write it as example.org")
    return name


def _path(given: str | list[str]) -> Path:
    return path_of(given) if isinstance(given, str) else tuple(given)


def _known(verifier: str | None, names: tuple[str, ...]) -> str | None:
    if verifier is not None and verifier not in names:  # [F3]
        raise ConfigurationError(f"There is no verifier {verifier!r}; there is {', '.join(names)}")
    return verifier


def _principal(table: _Principal, names: tuple[str, ...]) -> PrincipalRule:
    parents = tuple(
        ParentRule(each)
        if isinstance(each, str)
        else ParentRule(
            each.as_, None if each.each is None else _path(each.each), tuple(each.only), each.required, each.split
        )
        for each in table.parents
    )
    for template in (table.principal, *(each.template for each in parents)):
        _check_entity(template)
    return PrincipalRule(
        principal=table.principal,
        verifier=_known(table.verifier, names),
        conditions=table.conditions(),
        attributes={
            name: AttributeRule(path_of(each))
            if isinstance(each, str)
            else AttributeRule(_path(each.claim), each.type, each.required)
            for name, each in table.attributes.items()
        },
        parents=parents,
        roles=tuple(table.of),
    )


def _worker(table: _Workload, names: tuple[str, ...]) -> WorkerRule:
    if not is_path(_tried(table.path)):  # [F3]
        raise ConfigurationError(f"{table.path!r} is not the path of a SPIFFE id; write it as payments/{{sub}}")
    return WorkerRule(table.path, table.principal, _known(table.verifier, names), table.conditions())


def _check_entity(template: str) -> None:
    """F3."""
    try:
        Principal.parse(_tried(template))
    except ValueError:  # [F3]
        raise ConfigurationError(f'{template!r} does not make an entity; write it as User::"{{sub}}"') from None


def _tried(template: str) -> str:
    """A template with plain text in each place.

    Raises:
        ConfigurationError: A brace stands alone, or nothing is between two places.
    """
    if "}{" in template:  # [F3]
        raise ConfigurationError(f"{template!r} has two places with nothing between them; separate them")
    tried = PLACE.sub("x", template)
    if set(tried) & set("{}"):  # [F3]
        raise ConfigurationError(f"{template!r} has a brace that stands alone")
    return tried
