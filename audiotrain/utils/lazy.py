"""Public names of a package that are imported when they are first used."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, names_of: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__`; `names_of` maps modules below the package to the names that they
    define, separated by spaces."""
    homes = {name: module for module, names in names_of.items() for name in names.split()}

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return find
