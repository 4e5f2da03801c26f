"""Public names that are imported when they are asked for (PEP 562).

pytest loads this package wherever it is installed, and most commands need a small part of it.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def importer(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a package.

    Args:
        package: Its ``__name__``.
        modules: The public names by the module, relative to the package, that defines them.
    """
    homes = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return get
