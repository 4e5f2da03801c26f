"""Who follows a page as it changes: each holds a connection for as long as the page is open.

Rules, numbered as the code marks them:

N1  There are at most :attr:`Streams.most` streams, and :attr:`Streams.each` from one network address, so that nobody
    takes those of all others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from exequatur.authority.service.bounded import network_of


class Streams:
    """Streams that are open.

    Args:
        most: Of all.
        each: Of one network address.
    """

    def __init__(self, most: int = 100, each: int = 20) -> None:
        self.most = most
        self.each = each
        self._open: Counter[str] = Counter()

    def free(self, address: str) -> bool:
        """Whether one more may be opened from there."""
        return self._open.total() < self.most and self._open[network_of(address)] < self.each  # [N1]

    @contextmanager
    def taken(self, address: str) -> Iterator[None]:
        """Count one for as long as it is open."""
        network = network_of(address)
        self._open[network] += 1
        try:
            yield
        finally:
            self._open[network] -= 1
            if not self._open[network]:
                del self._open[network]
