"""What may be used once, remembered by all processes of an authority together."""

from __future__ import annotations

import secrets
from pathlib import Path

from exequatur.errors import ConfigurationError
from exequatur.settings import Settings

_FILE = "used.db"
"""In the state folder, for all processes of one host; without a shared database there is one host."""


class Once:
    """Remembers names in the shared database, or in the state folder where there is none.

    Args:
        settings: Name the shared database.
        state_dir: The state folder.

    Raises:
        ConfigurationError: The database cannot be used.
        StoreUnavailableError: It cannot be reached.
    """

    def __init__(self, settings: Settings, state_dir: Path) -> None:
        try:
            from exequatur.lineage.ledger import Ledger
        except ModuleNotFoundError as err:
            step = "run: pip install 'exequatur[authority]'"
            raise ConfigurationError(f"An authority service needs {err.name}; {step}") from err
        self._ledger = Ledger.open(settings.shared_state or state_dir / _FILE)

    def first(self, name: str, *, until: float) -> bool:
        """Whether nobody has used a name before. May block.

        Args:
            name: For example that of a token, by its issuer and ``jti``.
            until: Seconds since 1970 after which it is not valid anyway.

        Raises:
            StoreUnavailableError: It cannot be remembered, so it must not be used.
        """
        return self._ledger.pin(name, secrets.token_urlsafe(16), until=until)

    def check(self) -> None:
        """Refuse to be ready while nothing can be remembered.

        Raises:
            StoreUnavailableError: The database cannot be read.
        """
        self._ledger.size()

    def close(self) -> None:
        """Let go of the connections."""
        self._ledger.close()
