"""Public names of a package, imported when first used."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_exports(
    package: str, exports: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], list[str]]:
    """Return ``__getattr__`` and ``__all__`` for a package whose modules take long to import.

    Args:
        package: the package's ``__name__``.
        exports: names by the module that defines them, relative to the package.

    Example: ``__getattr__, __all__ = lazy_exports(__name__, {"losses": ["Ratio", "summarize"]})``
    """
    module_of = {name: module for module, names in exports.items() for name in names}

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)

    return get, sorted(module_of)
