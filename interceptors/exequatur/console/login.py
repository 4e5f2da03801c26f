"""Logging in with an OpenID provider: authorization code flow with PKCE (OpenID Connect Core 1.0, RFC 7636, RFC 9700).

Rules, numbered as the code marks them (O are those of :mod:`exequatur.identity.oidc`, M those of
:mod:`exequatur.identity.mapping`):

L1  An answer is taken only for a question of ours that is not older than :data:`WITHIN`, once, and from the browser
    that was sent with it (``state``, and a cookie, which all tabs of a browser share).
L2  Where the provider says who it is (``iss``, RFC 9207), it is the one that was asked; where it promised to, it must.
L3  The code is exchanged with the verifier that only this console has (PKCE, S256), at the provider's token endpoint
    over TLS, within bounds. No redirect is followed.
L4  The ID token verifies as the identity configuration says (O1 to O11), is issued by this provider to this console,
    and was asked for by this login (``nonce``).
L5  Whom it makes of a person, the identity configuration says (M): never the token itself, nor a parameter.
L6  After the login the browser goes to a page of this console, and nowhere else.
L7  How many logins wait for an answer is bounded, of all and of one network address, so that nobody pushes out those of
    others. No token is kept, shown or logged.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

from exequatur.authority.service.bounded import network_of
from exequatur.console.config import Login
from exequatur.console.errors import ProblemError
from exequatur.errors import ConfigurationError, IdentityError, IdentityUnavailableError
from exequatur.identity.callers import Identifies
from exequatur.identity.credential import ID_TOKEN_TYPE, Credential
from exequatur.identity.documents import DEADLINE, MAX_BYTES, Kept, WebSource, check_url
from exequatur.identity.principal import Principal
from exequatur.identity.tokens import read
from exequatur.statements.encoding import strict_json, to_base64url

WITHIN = 600.0
"""Seconds that a person has to log in at the provider."""
MOST = 1000
"""Logins that wait for an answer."""
EACH = 200
"""Of one network address."""
BACK = "/login/back"
_ENDPOINTS = ("authorization_endpoint", "token_endpoint")
_THREADS = 2
_OURS = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_LOCAL = re.compile(r"/(?![/\\])[^\x00-\x20\\]*\Z")

T = TypeVar("T")


@dataclass(frozen=True)
class _Asked:
    """A login that waits for its answer."""

    browser: str
    nonce: str
    verifier: str
    then: str
    back: str
    ends: float
    network: str


class LoginFlow:
    """Logs people in.

    Args:
        login: The provider.
        secret: Of this console there, where it has one.
        identity: Believes ID tokens, and says who they make.
        clock: Seconds since 1970.

    Raises:
        ConfigurationError: The issuer is no URL that may be asked, or the identity configuration believes names.
    """

    def __init__(
        self, login: Login, secret: str | None, identity: Identifies, clock: Callable[[], float] = time.time
    ) -> None:
        if identity.believes_names:
            raise ConfigurationError(
                "login: the identity file has a verifier of kind local, which believes whoever it is told; take it out"
            )
        self._login = login
        self._secret = secret
        self._identity = identity
        self._clock = clock
        self._loopback = urlsplit(login.issuer).scheme == "http"
        place = f"{login.issuer.rstrip('/')}/.well-known/openid-configuration"
        self._metadata = Kept(WebSource(place, loopback=self._loopback), self._read)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="exequatur-console-login")
        self._asked: OrderedDict[str, _Asked] = OrderedDict()

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def begin(self, origin: str, then: str, known: str, address: str) -> tuple[str, str]:
        """Begin a login.

        Args:
            origin: Scheme, host and port that this console is reached by.
            then: The page to go to afterwards.
            known: What the browser brought in the cookie, from a login that was begun in another tab.
            address: Where the browser asks from.

        Returns:
            Where to send the browser, and what it is to bring back in a cookie.

        Raises:
            IdentityUnavailableError: The provider cannot be reached.
        """
        metadata = await self._aside(self._metadata.get)
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        browser = known if _OURS.match(known) else secrets.token_urlsafe(32)
        asked = _Asked(
            _digest(browser), nonce, verifier, inside(then), origin + BACK, self._clock() + WITHIN, network_of(address)
        )
        with self._lock:
            mine = [name for name, each in self._asked.items() if each.network == asked.network]
            if len(mine) >= EACH:  # [L7]
                del self._asked[mine[0]]
            self._asked[state] = asked
            while len(self._asked) > MOST:  # [L7]
                self._asked.popitem(last=False)
        parameters = {
            "response_type": "code",
            "client_id": self._login.client_id,
            "redirect_uri": asked.back,
            "scope": " ".join(dict.fromkeys(("openid", *self._login.scopes))),
            "state": state,
            "nonce": nonce,
            "code_challenge": to_base64url(hashlib.sha256(verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        if self._login.prompt:
            parameters["prompt"] = self._login.prompt
        endpoint = str(metadata["authorization_endpoint"])
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(parameters)}", browser

    async def finish(self, answer: Mapping[str, str], browser: str) -> tuple[Principal, str]:
        """Take the provider's answer.

        Args:
            answer: The parameters that the browser came back with.
            browser: What it brought in the cookie.

        Returns:
            Who it is, and the page to go to.

        Raises:
            ProblemError: L1, L2, or the provider refused.
            IdentityError: L4, L5.
            IdentityUnavailableError: The provider cannot be reached.
        """
        with self._lock:
            asked = self._asked.pop(answer.get("state", ""), None)  # [L1]
        if (
            asked is None
            or self._clock() >= asked.ends  # [L1]
            or not hmac.compare_digest(_digest(browser), asked.browser)  # [L1]
        ):
            raise ProblemError(
                400, "That login was not begun here", "It is an old answer, or one to another browser.", "Log in again."
            )
        metadata = await self._aside(self._metadata.get)
        issuer = answer.get("iss")
        promised = metadata.get("authorization_response_iss_parameter_supported") is True
        if issuer != self._login.issuer and (issuer is not None or promised):  # [L2]
            raise ProblemError(400, "Another provider has answered", "Nobody was logged in.", "Log in again.")
        if "error" in answer:
            raise ProblemError(
                403,
                "The provider did not log you in",
                f"It says: {answer['error'][:100]} {answer.get('error_description', '')[:300]}",
                "Log in again, or ask who runs it.",
            )
        token = await self._exchanged(str(metadata["token_endpoint"]), answer.get("code", ""), asked)
        credential, now = Credential(token, ID_TOKEN_TYPE), self._clock()
        who = await self._aside(lambda: self._identity.identify(credential, now))  # L4, L5
        claims = read(token).claims
        audience = claims.get("aud")
        named = [audience] if isinstance(audience, str) else audience
        party = claims.get("azp", self._login.client_id)
        if claims.get("iss") != self._login.issuer:  # [L4]
            raise IdentityError("L4", "The ID token is of another provider than the one that was asked")
        if not isinstance(named, list) or self._login.client_id not in named or party != self._login.client_id:  # [L4]
            raise IdentityError("L4", "The ID token was issued to another client than this console")
        if claims.get("nonce") != asked.nonce:  # [L4]
            raise IdentityError("L4", "The ID token was asked for by another login")
        return who.principal, asked.then

    async def _aside(self, work: Callable[[], T]) -> T:
        """Do what may wait for the provider, in threads that nobody else waits for."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def _exchanged(self, endpoint: str, code: str, asked: _Asked) -> str:
        """L3: the ID token.

        Raises:
            ProblemError: The provider does not take the code.
            IdentityUnavailableError: It cannot be reached.
        """
        import httpx

        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": asked.back,
            "client_id": self._login.client_id,
            "code_verifier": asked.verifier,  # L3
        }
        basic = None if self._secret is None else httpx.BasicAuth(*_quoted(self._login.client_id, self._secret))
        received = bytearray()
        try:
            async with (
                asyncio.timeout(DEADLINE),
                httpx.AsyncClient(timeout=DEADLINE, follow_redirects=False) as client,  # [L3]
                client.stream("POST", endpoint, data=form, auth=basic) as answer,
            ):
                async for part in answer.aiter_bytes():
                    received += part
                    if len(received) > MAX_BYTES:
                        raise IdentityUnavailableError("The provider's answer is too large")
                status = answer.status_code
        except TimeoutError:
            raise IdentityUnavailableError("The provider does not answer in time") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as err:
            raise IdentityUnavailableError(f"The provider cannot be reached ({type(err).__name__})") from None
        try:
            said = strict_json(bytes(received))
        except ValueError:
            said = None
        token = said.get("id_token") if isinstance(said, dict) else None
        if status != 200 or not isinstance(token, str):
            raise ProblemError(
                403, "The provider did not log you in", f"It answered {status} without an ID token.", "Log in again."
            )
        return token

    def _read(self, data: bytes) -> dict[str, Any]:
        document = strict_json(data)
        if not isinstance(document, dict) or document.get("issuer") != self._login.issuer:
            raise ValueError("the discovery document is not the issuer's")
        for name in _ENDPOINTS:
            try:
                check_url(str(document.get(name, "")), loopback=self._loopback)
            except ConfigurationError:
                raise ValueError(f"the discovery document has no {name} that may be asked") from None
        return document


def inside(then: str) -> str:
    """A page of this console: the one that was asked for, or else the first (L6)."""
    return then if _LOCAL.match(then) and len(then) <= 2000 else "/"  # [L6]


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


def _quoted(*parts: str) -> tuple[str, str]:
    """Client id and secret as RFC 6749, section 2.3.1, has them before they are joined."""
    from urllib.parse import quote_plus

    first, second = (quote_plus(each) for each in parts)
    return first, second
