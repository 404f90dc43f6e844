"""Experiments: what people are split into, what came of each part, and in plain words what that shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from starlette.responses import Response

from dsp.catalog.types import Arm
from dsp.console import experiments
from dsp.console.access import EDIT, REPORT
from dsp.console.errors import ApiError
from dsp.console.experiments import ExperimentsQuery
from dsp.console.pages import plot, show
from dsp.console.pages.page import Page, see
from dsp.console.trials import Comparison, Results

HEADLINES = (  # the figure that an arm is judged by: the first of these that is known
    "value less spend per thousand people, USD",
    "value per thousand people, USD",
    "funded per thousand people",
    "applications per thousand people",
    "clicks per thousand people",
)
_MORE = (
    "{arm} does better than {base}, and chance does not explain it. By {figure}: {lift}; {low} to {high} is possible."
)
_LESS = (
    "{arm} does worse than {base}, and chance does not explain it. By {figure}: {lift}; {low} to {high} is possible."
)
_ALIKE = "No difference between {arm} and {base} is proven yet. By {figure}: {lift}; {low} to {high} is possible."
_UNKNOWN = "Of {arm} and {base} too little came to tell. Let it run on."


@dataclass(frozen=True)
class Shown:
    """An arm beside the base: what that shows, a picture of the lifts, and the figures."""

    arm: str
    verdict: str
    good: bool | None  # None: not proven
    picture: Markup | None
    rows: list[tuple[str, Comparison]]


def listing(page: Page) -> Response:
    """GET /experiments."""
    query = page.query(ExperimentsQuery)
    found = experiments.page(page.services.catalog, page.person, query)
    return page.show("experiments.html", query=query, items=found.items, more=found.next)


def one(page: Page) -> Response:
    """GET /experiments/ID."""
    found, _ = experiments.get(page.services.catalog, page.person, page.ref)
    arms = [(arm, float(arm.share), _does(page, arm)) for arm in found.arms]
    left = max(0.0, 1.0 - sum(share for _, share, _ in arms))
    may = page.person.may
    values = {"may_end": may(EDIT, found.advertiser_id), "may_see": may(REPORT, found.advertiser_id)}
    return page.show("experiment.html", one=found, arms=arms, left=left if left > 1e-6 else 0.0, **values)


def end(page: Page) -> Response:
    """POST /experiments/ID/end."""
    experiments.change(page.services.catalog, page.person, page.ref, {"status": "ended"}, "*")
    return see(f"/experiments/{page.ref}", "ended")


def results(page: Page) -> Response:
    """GET /experiments/ID/results: the part of a page that a script puts in place, as it takes a moment."""
    found, _ = experiments.get(page.services.catalog, page.person, page.ref)
    page.person.require(REPORT, found.advertiser_id)
    try:
        known = page.services.trials.read(found.id)
    except ApiError as error:
        return page.show("experiment_results.html", problem=error.problem, one=found, known=None)
    shown = [] if known is None else _shown(page, known)
    return page.show("experiment_results.html", one=found, known=known, shown=shown)


def _does(page: Page, arm: Arm) -> list[str]:
    """What an arm does otherwise than usual."""
    _ = page.words
    if arm.control:
        return [_("is shown nothing")]
    found = [] if float(arm.bid) == 1 else [_("bids {n} times the usual").replace("{n}", f"{float(arm.bid):g}")]
    for names, words in ((arm.creatives, "only the ads {names}"), (arm.offers, "only the offers {names}")):
        found += [_(words).replace("{names}", ", ".join(names))] if names else []
    found += [] if arm.model == "current" else [_("scored by the model that shadows")]
    return found or [_("as usual")]


def _shown(page: Page, known: Results) -> list[Shown]:
    _ = page.words
    found = []
    for arm, figures in known.compared.items():
        name = next((n for n in HEADLINES if n in figures and figures[n].lift is not None), "")
        told = figures.get(name)
        rows = []
        for n, f in figures.items():
            low, high = f.lift_interval
            if f.lift is not None and low is not None and high is not None:
                rows.append((_(n), low, f.lift, high, f.significant))
        title = _("Lift of {arm} over {base}").replace("{arm}", arm).replace("{base}", known.base)
        picture = plot.intervals(rows, title) if rows else None
        good = None if told is None or not told.significant else (told.difference or 0) > 0
        found.append(Shown(arm, _verdict(page, known.base, arm, name, told), good, picture, list(figures.items())))
    return [one for one in found if one.rows]


def _verdict(page: Page, base: str, arm: str, name: str, told: Comparison | None) -> str:
    """What an arm shows, in a sentence. Names are put in together: one may look like another's place."""
    _ = page.words
    if told is None or None in told.lift_interval:
        text, parts = _(_UNKNOWN), {}
    else:
        better = (told.difference or 0) > 0
        text = _(_ALIKE if not told.significant else _MORE if better else _LESS)
        low, high = told.lift_interval
        parts = {"figure": _(name), "lift": show.change(told.lift or 0)}
        parts |= {"low": show.change(low or 0), "high": show.change(high or 0)}
    values: dict[str, Any] = {"arm": arm, "base": base, **parts}
    return text.format_map(values)
