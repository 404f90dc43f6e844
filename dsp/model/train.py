"""`dsp train`: decision and outcome logs in, a new model version out, current if it passes its gates.

Invariants: deterministic by seed and data; the features are the logged ones, never recomputed; what is measured is what
is shipped (the hold-out is a fifth of the bids by a hash of the bid id, seen by no fit); a model that fails a gate is
kept on disk with the reasons in its manifest, and does not serve.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rich.progress
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from dsp.base.config import Config
from dsp.catalog.layout import LI_CURRENCY, LI_ID
from dsp.catalog.snapshot import Snapshot
from dsp.log.decisions import read_decisions
from dsp.log.outcomes import read_outcomes
from dsp.model import rollout
from dsp.model.admission import refusals
from dsp.model.bootstrap import prior_network
from dsp.model.card import CARD_FILE, render_card
from dsp.model.compared import brought
from dsp.model.context import HEADS
from dsp.model.curves import MEDIA_SLOTS, PRIOR, X_EXCHANGES, Curves, load_curves, prior_curves, save_curves
from dsp.model.evaluate import PARITY, Judged, gates, judge, parity
from dsp.model.export import to_onnx
from dsp.model.features import FEATURES, SHARED, SPEC_HASH
from dsp.model.heads import FOLDS, Trained, subsample, train_heads
from dsp.model.labels import Labels, join_labels, learned_horizons
from dsp.model.logistic import Sample
from dsp.model.manifest import MODEL_FILE, TRAINED, Manifest
from dsp.model.network import Network
from dsp.model.registry import ModelError, current_dir, save_version
from dsp.model.weights import Weighted, clipped, inverse_chance
from dsp.model.winscale import KEYS, WinScale, better, load_win_scale, save_win_scale

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

FitWinCurve = Callable[[F64, Bool, F64, I64, int, tuple[float, float]], F64]
"""`dsp.control.wincurve.fit_win_curve`; handed in, because `model` may not import `control`."""

FitWinScale = Callable[[F32, F64, Bool, F64, I64, int], tuple[F64, tuple[float, float], F64, F64, I64] | None]
"""`dsp.control.winscale.fit_win_scale`; handed in likewise."""

HOLDOUT = 0.2


def decisions_dir(config: Config) -> Path:
    """Where bidders write their decisions."""
    return config.path("log", "decisions")


def outcomes_dir(config: Config) -> Path:
    """Where the ledger writes outcomes."""
    return config.path("log", "outcomes")


def train(
    config: Config,
    *,
    seed: int | None = None,
    since_ms: int | None = None,
    horizon_ms: Mapping[str, int] | None = None,
    snapshot: Snapshot | None = None,
    fit_win_curve: FitWinCurve | None = None,
    fit_win_scale: FitWinScale | None = None,
    shadow: bool = False,
    progress: bool = False,
) -> Path:
    """Train on the logs under ``config.data_dir`` and return the new version's directory.

    ``seed`` defaults to the config's; ``since_ms`` leaves out older decisions, ``horizon_ms`` too young ones per head
    (`join_labels`; default: as long as 99 % of the positives took, `learned_horizons`). ``fit_win_curve`` learns the
    curves too (``snapshot`` gives its currencies), ``fit_win_scale`` what auctions go for by context; without
    ``fit_win_curve`` the current model's are kept. The new model is made
    current, with ``shadow`` set beside the current one, unless `dsp.model.admission.refusals` says why not. Raises
    `ModelError` where the logs hold no decision made under this build's features.
    """
    seed = config.seed if seed is None else seed
    # One BLAS thread: the matrices are small, a second thread costs more than it gives on a busy machine (measured 3.5
    # times the CPU time), and sums then come out the same whatever the machine's cores.
    with _progress(progress) as report, threadpool_limits(1, "blas"):
        report("reading the logs", 0.0)
        decisions = read_decisions(decisions_dir(config), since_ms, SPEC_HASH)
        if not len(decisions["bid_id"]):
            raise ModelError(
                f"{decisions_dir(config)}: no decision of feature spec {SPEC_HASH[:12]}; run a bidder first"
            )
        outcomes = read_outcomes(outcomes_dir(config), since_ms)
        horizon_ms = learned_horizons(decisions, outcomes) if horizon_ms is None else horizon_ms
        labels = join_labels(decisions, outcomes, horizon_ms)
        report("learning the win curve", 0.1)
        share = hash_share(decisions["bid_id"], seed)
        if fit_win_curve is None:
            curves, scale = _kept_curves(config)
        else:
            auctions = settled_auctions(decisions, labels, snapshot)
            curves = auctions.curves(fit_win_curve)
            scale = auctions.scale(fit_win_scale, curves, share < HOLDOUT) if fit_win_scale is not None else None
        usd, key = bid_usd_cpm(decisions, snapshot), auction_key(decisions)
        weight = inverse_chance(decisions, usd, key, curves, scale)
        trained, weighted = _train(
            decisions, labels, share, weight, seed, lambda done: report("training", 0.15 + 0.75 * done)
        )  # fmt: skip
        report("evaluating", 0.9)
        judged = judge(trained.network, decisions["features"], labels, share < HOLDOUT, weight)
        worth = _worth(trained.network, decisions, labels, share < HOLDOUT, snapshot)
        path = _save(config, trained, weighted, judged, (curves, scale), decisions, seed, worth)
        report("done", 1.0)
    if not refusals(config, path):
        version = Manifest.load(path).version
        if shadow and current_dir(config) is not None:
            rollout.shadow(config, version)
        else:
            rollout.promote(config, version)
    return path


def hash_share(bid_id: npt.NDArray[np.uint64], seed: int) -> F64:
    """A number in [0, 1) per bid that depends on nothing but its id and the seed (splitmix64)."""
    with np.errstate(over="ignore"):
        h = bid_id.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray((h ^ (h >> np.uint64(31))) >> np.uint64(11), np.float64) / 2.0**53


def _train(
    decisions: Mapping[str, Any], labels: Labels, share: F64, weight: F64, seed: int, tick: Callable[[float], None]
) -> tuple[Trained, list[Weighted]]:
    """The heads, on the rows that are not held out, each for the bids it stands for."""
    rng = np.random.default_rng(seed)
    fold = np.minimum((share - HOLDOUT) / (1.0 - HOLDOUT) * FOLDS, FOLDS - 1).astype(np.int64)
    samples, folds, weighted = [], [], []
    stands_for = np.empty(len(share))
    for h in range(len(HEADS)):
        rows, y = labels.of(h)
        inside = share[rows] >= HOLDOUT
        rows, y = rows[inside], y[inside]
        stands_for[rows], told = clipped(weight[rows])
        weighted.append(told)
        rows, y, sampled = subsample(rows, y, rng)
        samples.append(Sample(decisions["features"][rows], y, sampled * stands_for[rows]))
        folds.append(fold[rows])
    return train_heads(samples, folds, prior_network(), seed, tick), weighted


def _save(
    config: Config,
    trained: Trained,
    weighted: Sequence[Weighted],
    judged: Sequence[Judged],
    wins: tuple[Curves, WinScale | None],
    decisions: Mapping[str, Any],
    seed: int,
    worth: tuple[F64, F64] | None,
) -> Path:
    """Write the version, the gates' verdict included."""
    of_heads = zip(HEADS, judged, trained.families, weighted, strict=True)
    metrics = {head: j.metrics(family, told) for head, j, family, told in of_heads}

    def write(directory: Path, version: int) -> None:
        name = f"model-{version:06d}"
        directory.joinpath(MODEL_FILE).write_bytes(to_onnx(trained.network, name))
        save_curves(directory, wins[0])
        if wins[1] is not None:
            save_win_scale(directory, wins[1])
        manifest = Manifest(
            version=version,
            name=name,
            kind=TRAINED,
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            spec_hash=SPEC_HASH,
            features=FEATURES,
            heads=HEADS,
            seed=seed,
            rows=len(decisions["bid_id"]),
            first_ms=int(decisions["time_ms"].min()),
            last_ms=int(decisions["time_ms"].max()),
            metrics=metrics,
            refused=tuple(gates(trained.network, metrics)),
            libraries={name: importlib.metadata.version(name) for name in ("numpy", "onnx", "onnxruntime")},
        )
        manifest.save(directory)
        directory.joinpath(CARD_FILE).write_text(render_card(manifest, trained.network, judged, worth))
        difference = parity(directory, trained.network, decisions["features"][:512])
        if not difference <= PARITY:
            raise ModelError(f"{name}: the exported graph differs from the trained model by {difference:.1e}")

    return save_version(config, write)


def _worth(
    network: Network, decisions: Mapping[str, Any], labels: Labels, held: Bool, snapshot: Snapshot | None
) -> tuple[F64, F64] | None:
    """Value in USD of the held-out impressions whose every label is ripe, (predicted, what came); None without offers.

    Line items that the snapshot no longer has are left out.
    """
    if snapshot is None or not len(snapshot.li_i):
        return None
    ids = snapshot.li_i[:, LI_ID]  # sorted
    at = np.minimum(np.searchsorted(ids, decisions["line_item"]), len(ids) - 1)
    rows = np.flatnonzero(held & labels.usable[:, 0] & labels.ripe & (ids[at] == decisions["line_item"]))
    offer, usd = snapshot.li_v[at[rows]], snapshot.cur_usd[snapshot.li_i[at[rows], LI_CURRENCY]]
    reached = np.asarray(np.cumprod(network.predict(decisions["features"][rows]), axis=1), np.float64)
    came = labels.stage[rows, 1:].astype(np.float64)
    return brought(reached, offer) * usd, brought(came, offer) * usd


@dataclass(frozen=True)
class Auctions:
    """The bids whose auction is settled, in log order: ``row`` int64[n] of the decisions, ``bid`` and ``price`` to win
    float64[n] in CPM micros of USD (NaN where it was not told), ``won`` bool[n], ``key`` int64[n] exchange *
    MEDIA_SLOTS + medium, and the features ``x`` float32[n, F].
    """

    row: I64
    bid: F64
    won: Bool
    price: F64
    key: I64
    x: F32

    def curves(self, fit: FitWinCurve) -> Curves:
        """Win curves per exchange and medium."""
        return fit(self.bid, self.won, self.price, self.key, KEYS, PRIOR).reshape(X_EXCHANGES, MEDIA_SLOTS, 2)

    def scale(self, fit: FitWinScale, curves: Curves, held: Bool) -> WinScale | None:
        """Prices by context, where on the decisions ``held`` out they say more than ``curves``; None elsewhere."""
        out = held[self.row]
        learned = fit(
            self.x[~out, :SHARED], self.bid[~out], self.won[~out], self.price[~out], self.key[~out], KEYS
        )  # fmt: skip
        if learned is None:
            return None
        found = WinScale(*learned)
        flat = curves.reshape(KEYS, 2)
        return found if better(found, flat, self.x[out], self.bid[out], self.won[out], self.key[out]) else None


def settled_auctions(decisions: Mapping[str, Any], labels: Labels, snapshot: Snapshot | None) -> Auctions:
    """What the logs say of auctions."""
    row = np.flatnonzero(labels.settled)
    usd = bid_usd_cpm(decisions, snapshot)[row]
    price = labels.price[row] * usd / decisions["bid_cpm_micros"][row]
    return Auctions(row, usd, labels.won[row], price, auction_key(decisions)[row], decisions["features"][row])


def auction_key(decisions: Mapping[str, Any]) -> I64:
    """exchange * MEDIA_SLOTS + medium, int64[n]."""
    slot = np.log2(np.maximum(decisions["media"], 1)).astype(np.int64)
    return np.minimum(decisions["exchange"].astype(np.int64), X_EXCHANGES - 1) * MEDIA_SLOTS + slot


def _kept_curves(config: Config) -> tuple[Curves, WinScale | None]:
    current = current_dir(config)
    return (prior_curves(), None) if current is None else (load_curves(current), load_win_scale(current))


def bid_usd_cpm(decisions: Mapping[str, Any], snapshot: Snapshot | None) -> F64:
    """Every bid as CPM micros of USD.

    The log has bids in bid currency without naming it, and the same money in account currency as the reservation of
    one impression; the line item names that currency. Without a snapshot, or for a line item it no longer has, bids are
    taken as USD.
    """
    bid = decisions["bid_cpm_micros"].astype(np.float64)
    if snapshot is None or not len(snapshot.li_i):
        return bid
    ids = snapshot.li_i[:, LI_ID]  # sorted
    at = np.minimum(np.searchsorted(ids, decisions["line_item"]), len(ids) - 1)
    known = ids[at] == decisions["line_item"]
    rate = snapshot.cur_usd[snapshot.li_i[at, LI_CURRENCY]]
    return np.where(known, decisions["reserve_micros"] * 1000.0 * rate, bid)


Report = Callable[[str, float], None]


class _Bar(AbstractContextManager[Report]):
    """A progress bar on standard error, for people."""

    def __init__(self) -> None:
        self._bar = rich.progress.Progress(transient=False)

    def __enter__(self) -> Report:
        self._bar.start()
        task = self._bar.add_task("train", total=1.0)
        return lambda what, share: self._bar.update(task, description=what, completed=share)

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()


def _progress(shown: bool) -> AbstractContextManager[Report]:
    return _Bar() if shown else nullcontext(lambda what, share: None)
