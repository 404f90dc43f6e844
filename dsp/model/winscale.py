"""What an auction goes for by its context, as it travels with a model: ``win_scale.npz`` beside the win curves.

F(b | x) = F0(b / exp(w . x)): a scale from the features that depend on the imp alone, and per exchange and medium a
table of the spread around it (`dsp.control.winscale` learns both). An exchange and medium with too few auctions has no
table and keeps its parametric curve (`dsp.model.curves`); a model without the file keeps them all.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dsp.model.curves import MEDIA_SLOTS, X_EXCHANGES
from dsp.model.features import SHARED
from dsp.model.registry import ModelError

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

WIN_SCALE_FILE = "win_scale.npz"
KEYS = X_EXCHANGES * MEDIA_SLOTS
_SIGNIFICANT = 2.0  # standard errors


@dataclass(frozen=True)
class WinScale:
    """``weights`` float64[SHARED + 1] of ln scale (the last is the constant; CPM micros of USD), which is held in
    ``reach`` (low, high); ``ratio`` float64[cells] the rising grid of bid over scale; ``mass`` float64[rows, cells + 1]
    the chance that a grid point is the lowest that wins, the last that none does; ``row`` int64[KEYS] the table of
    exchange * MEDIA_SLOTS + slot, -1 none.
    """

    weights: F64
    reach: tuple[float, float]
    ratio: F64
    mass: F64
    row: I64

    def log_scale(self, x: F32) -> F64:
        """ln of the scale float64[n] for features ``x`` float32[n, F]."""
        return np.clip(x[:, :SHARED] @ self.weights[:-1] + self.weights[-1], *self.reach)

    def chance(self, x: F32, bid: F64, key: I64) -> F64:
        """F(bid | x) float64[n], ``bid`` in CPM micros of USD; NaN where the key has no table."""
        at = np.log(np.maximum(bid, 1.0)) - self.log_scale(x)
        reached, log_ratio = np.cumsum(self.mass[:, :-1], axis=1), np.log(self.ratio)
        out = np.full(len(bid), np.nan)
        for r in range(len(self.mass)):
            of = self.row[key] == r
            out[of] = np.interp(at[of], log_ratio, reached[r], left=0.0)
        return out


def curve_chance(curve: F64, bid: F64) -> F64:
    """F(bid) float64[n] by parametric curves float64[n, 2] of (k, c)."""
    out: F64 = 1.0 / (1.0 + (curve[:, 1] / np.maximum(bid, 1.0)) ** curve[:, 0])
    return out


def better(found: WinScale, curve: F64, x: F32, bid: F64, won: Bool, key: I64) -> bool:
    """Whether the tables tell won from lost, on rows they have not seen, better than ``curve`` float64[KEYS, 2].

    By log loss, and by more than two standard errors; of the rows whose key has a table.
    """
    rows = np.flatnonzero(found.row[key] >= 0)
    if len(rows) < 2:
        return False
    ours = found.chance(x[rows], bid[rows], key[rows])
    gain = _loss(curve_chance(curve[key[rows]], bid[rows]), won[rows]) - _loss(ours, won[rows])
    return bool(gain.mean() > _SIGNIFICANT * gain.std() / np.sqrt(len(gain)))


def _loss(chance: F64, won: Bool) -> F64:
    chance = np.clip(chance, 1e-4, 1.0 - 1e-4)
    return np.asarray(-np.log(np.where(won, chance, 1.0 - chance)))


def save_win_scale(directory: Path, scale: WinScale) -> None:
    """Write ``win_scale.npz``."""
    with directory.joinpath(WIN_SCALE_FILE).open("wb") as file:
        np.savez_compressed(
            file, weights=scale.weights, reach=scale.reach, ratio=scale.ratio, mass=scale.mass, row=scale.row
        )


def load_win_scale(directory: Path) -> WinScale | None:
    """Read it; None without. Raises `ModelError` where it can't price."""
    path = directory / WIN_SCALE_FILE
    try:
        with np.load(path, allow_pickle=False) as file:
            weights, ratio, mass = (file[name].astype(np.float64) for name in ("weights", "ratio", "mass"))
            row, (low, high) = file["row"].astype(np.int64), file["reach"].tolist()
    except FileNotFoundError:
        return None
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: {error}") from error
    shapes = weights.shape == (SHARED + 1,) and row.shape == (KEYS,) and mass.shape[1:] == (len(ratio) + 1,)
    if not (shapes and len(ratio) > 1 and row.max() < len(mass)):
        raise ModelError(f"{path}: made for other features or exchanges; run `dsp train`")
    finite = all(np.isfinite(part).all() for part in (weights, ratio, mass, np.array([low, high])))
    if not (finite and ratio[0] > 0 and (np.diff(ratio) > 0).all() and (mass >= 0).all()):
        raise ModelError(f"{path}: every number must be finite, the grid rising and no chance below 0")
    return WinScale(weights, (low, high), ratio, mass, row)
