"""A demand-side platform that buys customers for financial products; see README.md."""

import os
import sys

__version__ = "0.1.0"

# Before any kernel is declared: a stale one must never run (see there). By environment, so that what needs no kernel
# does not wait for numba to be imported.
_LOCATORS = ",".join(f"dsp.base.kernel_cache.{name}" for name in ("UserProvided", "InTree", "UserWide"))
os.environ["NUMBA_CACHE_LOCATOR_CLASSES"] = _LOCATORS
if "numba" in sys.modules:
    sys.modules["numba"].config.CACHE_LOCATOR_CLASSES = _LOCATORS
