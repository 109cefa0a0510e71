"""Files of installed data packages, found without importing them."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tasks.task import MissingDataError


@cache
def packaged_file(package: str, path: str, distribution: str) -> Path:
    """Where `path` of an installed package lies.

    Raises:
        MissingDataError: the package is not installed, or has no such file.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDataError(distribution, f"no package {package!r}")
    file = Path(spec.submodule_search_locations[0]) / path
    if not file.exists():
        raise MissingDataError(distribution, f"no file {path!r} in package {package!r}")
    return file
