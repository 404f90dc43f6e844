"""How the hot path's kernels are compiled: cached on disk, and without numba's reference counting of arrays.

Numba counts references to arrays around calls between kernels, with atomic instructions: six and more per call of a
small function with a few array arguments, which cost eight times what such functions did (a creative's fit: 520 ns
with, 62 ns without, side by side). A kernel allocates nothing and its arrays outlive it, so there is nothing to count.
A function that allocates an array fails to compile under `kernel`; it takes plain ``nb.njit``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba as nb

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` as a kernel that allocates nothing."""
    compiled: Callable[P, R] = nb.njit(cache=True, _nrt=False)(function)
    return compiled


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """As `kernel`, and always inlined: for small functions of many arrays, each of which is seven words to pass."""
    compiled: Callable[P, R] = nb.njit(cache=True, _nrt=False, forceinline=True)(function)
    return compiled
