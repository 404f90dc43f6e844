"""What must hold of a campaign's experiments: arms that can be told apart, people to fill them, names that exist."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from dsp.catalog import types
from dsp.catalog.source import FieldPath

MAX_ARMS = 8
MIN_BID, MAX_BID = 0.01, 10.0  # multipliers
_Say = Callable[[FieldPath, str], None]


def check_experiments(at: FieldPath, campaign: types.Campaign, say: _Say) -> None:
    """Tell ``say`` of every problem; ``at`` is the path of the campaign's experiments.

    A campaign without line items is one that the console saves by itself: names of line items, creatives and offers
    are not looked up then.
    """
    items = {item.name: item for item in campaign.line_items}
    taken: dict[str, str] = {}
    for i, experiment in enumerate(campaign.experiments):
        e_at = (*at, i)
        if experiment.name in [other.name for other in campaign.experiments[:i]]:
            say((*e_at, "name"), f"{experiment.name!r} is there twice")
        _check_arms(e_at, experiment.arms, say)
        wanted = experiment.line_items or tuple(items)
        if items:
            _one_of((*e_at, "line_items"), "line item", experiment.line_items, items, say)
            _check_parts(e_at, experiment, [items[name] for name in wanted if name in items], say)
        if experiment.status == "ended":
            continue
        for name in wanted or ("*",):
            if taken.setdefault(name, experiment.name) != experiment.name:
                say((*e_at, "line_items"), f"{name!r} is in experiment {taken[name]!r} already; end that first")


def _check_parts(at: FieldPath, experiment: types.Experiment, items: list[types.LineItem], say: _Say) -> None:
    """What arms name must be among the experiment's line items."""
    ads = sorted({creative.name for item in items for creative in item.creatives})
    offers = sorted({item.offer for item in items})
    for k, arm in enumerate(experiment.arms):
        _one_of((*at, "arms", k, "creatives"), "creative", arm.creatives, ads, say)
        _one_of((*at, "arms", k, "offers"), "offer", arm.offers, offers, say)


def _check_arms(at: FieldPath, arms: Sequence[types.Arm], say: _Say) -> None:
    if not 2 <= len(arms) <= MAX_ARMS:
        say((*at, "arms"), f"{len(arms)} arms; write 2 to {MAX_ARMS} to compare")
    total = 0.0
    for k, arm in enumerate(arms):
        a_at = (*at, "arms", k)
        if arm.name in [other.name for other in arms[:k]]:
            say((*a_at, "name"), f"{arm.name!r} is there twice")
        share, bid = _number(arm.share), _number(arm.bid)
        if share is None or not 0 <= share <= 1:
            say((*a_at, "share"), f"{arm.share!r} is not a share; write a number from 0 to 1")
        total += share or 0.0
        if bid is None or not MIN_BID <= bid <= MAX_BID:
            say((*a_at, "bid"), f"{arm.bid!r} is not a multiplier; write a number from {MIN_BID} to {MAX_BID}")
        elif arm.control and (bid != 1 or arm.creatives or arm.offers or arm.model != "current"):
            say((*a_at, "control"), "a control arm is shown nothing: it has no bid, creatives, offers or model")
    if total > 1 + 1e-9:
        say((*at, "arms"), f"the shares sum to {total:g}, more than everybody")


def _one_of(at: FieldPath, what: str, names: Sequence[str], allowed: Iterable[str], say: _Say) -> None:
    for i, name in enumerate(names):
        if name not in allowed:
            say((*at, i), f"unknown {what} {name!r}; write one of {', '.join(allowed)}")


def _number(value: types.Amount) -> float | None:
    """``value`` as a finite number; None: it is not one."""
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
