"""A bundle file on disk in a worker without policy keys: as much to be believed as a folder of policies."""

from __future__ import annotations

from collections.abc import Hashable

from exequatur.policy.offer import Fits, Offer, anything
from exequatur.release.directory import FilePlace
from exequatur.release.file import BundleFile
from exequatur.release.places import found
from exequatur.release.source import offered
from exequatur.release.verify import provenance_of


class UnverifiedBundle:
    """A bundle file whose releases, if it has any, are not looked at; there is no canary.

    Args:
        place: Where it is.
    """

    def __init__(self, place: FilePlace) -> None:
        self._place = place

    def __str__(self) -> str:
        return str(self._place)

    def state(self) -> Hashable:
        """What the file system says about the file."""
        return self._place.look()

    def offer(self, current: Offer | None, fits: Fits = anything) -> Offer | None:
        """Read the file, and parse it when it is not in force.

        Raises:
            PolicyError: It is refused.
        """
        name = str(self._place)
        file = BundleFile.read(found(self._place, "stable"), name)
        contents = file.open(name)
        return offered(contents, provenance_of(contents, file), name, current, fits)

    def accept(self, offer: Offer) -> None:
        """Nothing need be remembered of what nobody released."""
