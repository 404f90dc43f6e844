"""A compiled kernel is reused only while no module it depends on has changed."""

from pathlib import Path

from numba.core import config

import dsp
from dsp.base import kernel_cache
from dsp.base.kernel_cache import source_stamp
from dsp.openrtb import hashing

PACKAGE = Path(dsp.__file__).parent


def test_locators_are_installed() -> None:
    assert "dsp.base.kernel_cache.InTree" in config.CACHE_LOCATOR_CLASSES
    locator = hashing.hash_bytes._cache._impl.locator
    assert locator.get_source_stamp() == source_stamp(PACKAGE / "openrtb" / "hashing.py")


def test_stamp_covers_what_a_module_imports(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    decode, columns = PACKAGE / "openrtb" / "decode.py", PACKAGE / "openrtb" / "columns.py"
    before = source_stamp(decode)
    read = kernel_cache._read

    def changed(path: Path) -> tuple[bytes, tuple[Path, ...]]:
        digest, imported = read(path)
        return (b"another" if path == columns else digest), imported

    monkeypatch.setattr(kernel_cache, "_read", changed)
    assert source_stamp.__wrapped__(decode) != before
    assert source_stamp.__wrapped__(PACKAGE / "openrtb" / "hashing.py") == source_stamp(
        PACKAGE / "openrtb" / "hashing.py"
    )
