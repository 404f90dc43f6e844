"""The win curve parameters that travel with a model: float64[X_EXCHANGES, MEDIA_SLOTS, 2] of (k, c).

F(b) = b^k / (b^k + c^k) with c in CPM micros of USD (`dsp.control.wincurve` fits and uses them). One curve per exchange
and medium of the creative; a slot is the medium's bit position (banner 0, video 1, audio 2, native 3).
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numba as nb
import numpy as np
import numpy.typing as npt

from dsp.model.manifest import WIN_CURVE_FILE
from dsp.model.registry import ModelError

X_EXCHANGES = 64  # further exchanges share the last row
MEDIA_SLOTS = 4
PRIOR = (2.0, 1_500_000.0)  # before any auction: half won at 1.50 USD CPM

Curves = npt.NDArray[np.float64]


@nb.njit(cache=True, inline="always")
def media_slot(media: int) -> int:
    """The slot of a medium's bit (BANNER 1, VIDEO 2, AUDIO 4, NATIVE 8)."""
    if media >= 8:
        return 3
    if media >= 4:
        return 2
    return 1 if media >= 2 else 0


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """``win_curve.json``: the prior, and the curves that differ from it."""

    prior: tuple[float, float]
    curves: list[tuple[int, int, float, float]]  # exchange, media slot, k, c (CPM micros of USD)


def prior_curves() -> Curves:
    """Every exchange and medium at `PRIOR`."""
    return np.tile(np.array(PRIOR, np.float64), (X_EXCHANGES, MEDIA_SLOTS, 1))


def save_curves(directory: Path, curves: Curves) -> None:
    """Write ``win_curve.json``: readable, only what differs from the prior."""
    rows = [
        (x, m, float(curves[x, m, 0]), float(curves[x, m, 1]))
        for x in range(X_EXCHANGES)
        for m in range(MEDIA_SLOTS)
        if tuple(curves[x, m]) != PRIOR
    ]
    directory.joinpath(WIN_CURVE_FILE).write_bytes(msgspec.json.encode(_File(PRIOR, rows)))


def load_curves(directory: Path) -> Curves:
    """Read ``win_curve.json``. Raises `ModelError` where it is missing, malformed or not positive."""
    path = directory / WIN_CURVE_FILE
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except (OSError, msgspec.DecodeError) as error:
        raise ModelError(f"{path}: {error}") from error
    curves = np.tile(np.array(file.prior, np.float64), (X_EXCHANGES, MEDIA_SLOTS, 1))
    for x, m, k, c in file.curves:
        if not (0 <= x < X_EXCHANGES and 0 <= m < MEDIA_SLOTS):
            raise ModelError(f"{path}: no exchange {x} or media slot {m}")
        curves[x, m] = k, c
    if not (np.isfinite(curves).all() and (curves > 0).all()):
        raise ModelError(f"{path}: every k and c must be a positive number")
    return curves
