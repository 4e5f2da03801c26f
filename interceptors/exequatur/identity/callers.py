"""Who asks an authority, and on whose behalf: what came with a request becomes principals.

Rules, numbered as the code marks them (V are those of :mod:`exequatur.identity.verifier`, M those of
:mod:`exequatur.identity.mapping`, A those of :mod:`exequatur.identity.actors`):

C1  Who asks shows a credential: a token, or the TLS client certificate of the connection.
C2  A token that is bound to a certificate is believed only over a connection with that certificate.
C3  Where somebody acts for somebody else, both credentials verify, and the subject's token lets the actor (A3).
C4  The chain of actors is the actor's own (A2), the actor, and those who acted for the subject before (A2): no more
    than :data:`~exequatur.identity.actors.MAX_ACTORS`.
C5  When the first of the credentials ends, and which tokens are used up by being shown, is handed on; and of each of
    those, when it ends itself, for until then it must not be forgotten.
C6  Who may be a worker, and under which SPIFFE path, only the configuration says, of who shows a credential of its own:
    one in whose token somebody acts for it is none.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from exequatur.errors import IdentityError
from exequatur.identity.actors import MAX_ACTORS, actor_of, acts_in, check_may_act
from exequatur.identity.credential import CERTIFICATE_TYPE, Credential
from exequatur.identity.mapping import Rules, WorkerRule, worker_path
from exequatur.identity.principal import Principal
from exequatur.identity.verifier import Claims, Verifiers
from exequatur.statements.encoding import digest, to_base64url
from exequatur.statements.models import Actor


class Used(NamedTuple):
    """A token that is used up by being shown.

    Args:
        name: Tells it from others, and not what it is.
        ends: When it ends, in seconds since 1970.
    """

    name: str
    ends: float


@dataclass(frozen=True)
class Identified:
    """Who asks.

    Args:
        principal: On whose behalf.
        acting: Who acts for the principal.
        asks: Who asks: who acts now, or else the principal.
        worker: Path of the SPIFFE id, without a leading slash, where the configuration lets who asks be a worker.
        expires: When the first of the credentials ends, in seconds since 1970.
        once: The tokens that are used up by this request. Each may be taken once, by all processes of the authority
            together.
        verifiers: Names of those that verified.
    """

    principal: Principal
    acting: Actor | None
    asks: Principal
    worker: str | None
    expires: float
    once: tuple[Used, ...]
    verifiers: tuple[str, ...]


class Identifies(Protocol):
    """What tells who asks."""

    @property
    def believes_names(self) -> bool:
        """Whether it believes whatever name it is told, as for development."""
        ...

    def identify(
        self,
        subject: Credential | None,
        now: float,
        *,
        actor: Credential | None = None,
        certificate: bytes | None = None,
    ) -> Identified:
        """Tell who asks; see :meth:`Callers.identify`."""
        ...


@dataclass(frozen=True)
class Callers:
    """An authority's identity configuration.

    Args:
        verifiers: Believe credentials.
        rules: Make principals of them.
        workers: Make workers of them.
        believes_names: Whether one of the verifiers believes whatever name it is told.
    """

    verifiers: Verifiers
    rules: Rules
    workers: tuple[WorkerRule, ...] = ()
    believes_names: bool = False

    def identify(
        self,
        subject: Credential | None,
        now: float,
        *,
        actor: Credential | None = None,
        certificate: bytes | None = None,
    ) -> Identified:
        """Tell who asks; may fetch keys, so call it from a thread that may wait.

        Args:
            subject: On whose behalf; ``None`` for the certificate's.
            now: Seconds since 1970.
            actor: Who acts for the subject, if somebody else does. One of type
                :data:`~exequatur.identity.credential.CERTIFICATE_TYPE` stands for the certificate, as a subject may.
            certificate: DER of the connection's TLS client certificate.

        Raises:
            IdentityError: C1 to C4, or a rule of a verifier or of the mapping.
            IdentityUnavailableError: It cannot be found out now.
        """
        spoken_of = self._verified(subject, certificate, now)
        acts = None if actor is None else self._verified(actor, certificate, now)  # [C3]
        principal = self.rules.principal(spoken_of)
        chain = within = acts_in(spoken_of, self.rules)
        if acts is not None:
            check_may_act(spoken_of, acts)  # [C3]
            within = acts_in(acts, self.rules)
            chain = [*within, self.rules.principal(acts, "actor"), *chain]
        if len(chain) > MAX_ACTORS:  # [C4]
            raise IdentityError("C4", f"{len(chain)} act for one another; {MAX_ACTORS} is the most")
        asks = chain[0] if chain else principal
        shown = [each for each in (spoken_of, acts) if each is not None]
        return Identified(
            principal=principal,
            acting=actor_of(chain),
            asks=asks,
            worker=None if within else worker_path(self.workers, acts or spoken_of, asks),  # C6
            expires=min(each.expires for each in shown),  # C5
            once=tuple(_used(each) for each in shown if each.once),  # C5
            verifiers=tuple(dict.fromkeys(each.verifier for each in shown)),
        )

    def _verified(self, credential: Credential | None, certificate: bytes | None, now: float) -> Claims:
        """C1 and C2."""
        if credential is None or credential.type == CERTIFICATE_TYPE:
            if certificate is None:  # [C1]
                raise IdentityError("C1", "No credential was shown: send a token, or connect with a client certificate")
            return self.verifiers.verify_certificate(certificate, now)
        claims = self.verifiers.verify(credential, now)
        if claims.certificate is not None and claims.certificate != thumbprint(certificate):  # [C2]
            raise IdentityError(
                "C2", "The token is bound to a client certificate, and the connection has another or none"
            )
        return claims


def thumbprint(certificate: bytes | None) -> str | None:
    """``x5t#S256`` of a certificate in DER (RFC 8705, section 3.1)."""
    return None if certificate is None else to_base64url(hashlib.sha256(certificate).digest())


def _used(claims: Claims) -> Used:
    """What a token that is used once is remembered by. It is a digest, for an id may be of any length."""
    return Used(digest(f"exequatur token used\n{claims.issuer}\n{claims.token_id}"), claims.expires)
