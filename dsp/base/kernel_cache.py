"""Where numba keeps compiled kernels, and when it may reuse one: only while nothing it was made from has changed.

Numba's own rule looks at the kernel's file alone. Ours call kernels of other modules and bake in their constants (the
columns of a table, say), so after a change elsewhere a stale kernel would run, and write to the wrong columns. Here a
kernel's stamp covers its file and every `dsp` module that file imports, directly or not. ``dsp/__init__.py`` installs
these locators before numba is first used.
"""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path

from numba.core.caching import InTreeCacheLocator, UserProvidedCacheLocator, UserWideCacheLocator

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGE = Path(__file__).resolve().parents[1].name
# Import statements, found by their text: parsing every module took a tenth of a worker's start.
_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n#]*)|import[ \t]+([^\n#]+))", re.M)
_NAME = re.compile(r"[\w.]+")


@functools.cache
def _read(path: Path) -> tuple[bytes, tuple[Path, ...]]:
    """(digest of a module's source, files of the modules of this package it imports)."""
    source = path.read_bytes()
    imported: set[Path] = set()
    for match in _IMPORT.finditer(source.decode()):
        package, names, modules = match.groups()
        listed = _NAME.findall(modules or names)
        for name in [package, *(f"{package}.{each}" for each in listed)] if package else listed:
            if name.split(".")[0] == _PACKAGE:
                file = _ROOT.joinpath(*name.split(".")).with_suffix(".py")
                if file.is_file():
                    imported.add(file)
    return hashlib.sha256(source).digest(), tuple(sorted(imported))


@functools.cache
def source_stamp(path: Path) -> str:
    """Digest of a module's source and of all modules of this package it depends on."""
    seen: set[Path] = set()
    waiting = [path.resolve()]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting += _read(file)[1]
    digest = hashlib.sha256()
    for file in sorted(seen):
        digest.update(_read(file)[0])
    return digest.hexdigest()


class UserProvided(UserProvidedCacheLocator):
    """Numba's locator for ``NUMBA_CACHE_DIR``, with our stamp."""

    def get_source_stamp(self) -> str:
        """See `source_stamp`."""
        return source_stamp(Path(self._py_file))


class InTree(InTreeCacheLocator):
    """Numba's locator for ``__pycache__`` beside the source, with our stamp."""

    def get_source_stamp(self) -> str:
        """See `source_stamp`."""
        return source_stamp(Path(self._py_file))


class UserWide(UserWideCacheLocator):
    """Numba's locator for the user's cache directory, with our stamp: for a read-only installation."""

    def get_source_stamp(self) -> str:
        """See `source_stamp`."""
        return source_stamp(Path(self._py_file))
