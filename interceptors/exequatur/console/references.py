"""What this console gave out, and takes back: names of runs for the public, and pages of lists.

Rules, numbered as the code marks them:

N1  A public viewer names a run by a reference that was given out here, never by its ids.
N2  A page of a list is asked for with what was given out here for the same list: the server's own tokens are nobody's
    to make up, nor to read, because they hold ids.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from exequatur.console.errors import ProblemError

MOST = 20_000
"""References that are remembered; those that are not used are forgotten first."""
_NONCE = 12


@dataclass(frozen=True)
class Place:
    """A run.

    Args:
        namespace: Where it is.
        workflow_id: Its workflow id.
        run_id: Its run id.
    """

    namespace: str
    workflow_id: str
    run_id: str


class References:
    """What was given out since the console was started."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._pages = AESGCM(AESGCM.generate_key(256))
        self._places: OrderedDict[str, Place] = OrderedDict()
        self._lock = threading.Lock()

    def reference(self, place: Place) -> str:
        """What a public viewer names a run by."""
        made = self._mac("run", place.namespace, place.workflow_id, place.run_id)
        with self._lock:
            self._places[made] = place
            self._places.move_to_end(made)
            while len(self._places) > MOST:
                self._places.popitem(last=False)
        return made

    def referred(self, reference: str) -> Place:
        """The run that a reference was given out for.

        Raises:
            ProblemError: None was.
        """
        with self._lock:
            if (place := self._places.get(reference)) is not None:
                self._places.move_to_end(reference)
                return place
        raise ProblemError(  # N1
            404, "That link has ended", "Links of the public view last for a while only.", "Open the list of runs."
        )

    def sealed(self, token: bytes, listed: str) -> str:
        """What a viewer asks for the next page of a list with.

        Args:
            token: The server's.
            listed: Which list.
        """
        nonce = secrets.token_bytes(_NONCE)
        sealed = self._pages.encrypt(nonce, token, listed.encode("utf-8", "surrogatepass"))  # [N2]
        return urlsafe_b64encode(nonce + sealed).decode()

    def unsealed(self, text: str, listed: str) -> bytes | None:
        """The server's token that :meth:`sealed` was given; ``None`` for an empty text.

        Raises:
            ProblemError: It was not given out here, or for another list.
        """
        if not text:
            return None
        try:
            sealed = urlsafe_b64decode(text)
            return self._pages.decrypt(sealed[:_NONCE], sealed[_NONCE:], listed.encode("utf-8", "surrogatepass"))
        except (ValueError, InvalidTag):  # [N2]
            raise ProblemError(
                400, "There is no such page", "The address was changed, or is old.", "Search again."
            ) from None

    def _mac(self, *what: str) -> str:
        said = "".join(f"{len(each)}:{each}" for each in what).encode("utf-8", "surrogatepass")
        return hmac.new(self._secret, said, hashlib.sha256).hexdigest()[:24]
