"""One request of a person, and the templates that answer it.

Pages are HTML made on the server over the same calls as the API. A form that is refused comes back as it was typed,
with the fields at fault marked. Every form carries the CSRF token and, where it changes something, the ETag of what it
showed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jinja2
import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from dsp.console import review
from dsp.console.access import ADMIN, EDIT, REPORT, Identity
from dsp.console.edge import LANGUAGE, LANGUAGES, identify, language_of
from dsp.console.errors import ApiError
from dsp.console.pages import plot, show
from dsp.console.services import Services
from dsp.console.words import problem_in, refusal, translator

HERE = Path(__file__).parents[1]
_MOST_FIELDS = 3000
NAV = (  # group -> address, words, picture
    ("", (("/", "Overview", "overview"), ("/guide", "First steps", "guide"))),
    (
        "Buying",
        (
            ("/campaigns", "Campaigns", "campaigns"),
            ("/line-items", "Line items", "line_items"),
            ("/creatives", "Creatives", "creatives"),
            ("/audiences", "Audiences", "audiences"),
            ("/review", "Review", "review"),
        ),
    ),
    (
        "Results",
        (
            ("/reports", "Reports", "reports"),
            ("/experiments", "Experiments", "experiments"),
            ("/exchanges", "Exchanges", "exchanges"),
            ("/changes", "Changes", "changes"),
        ),
    ),
    (
        "Access",
        (("/users", "Users", "users"), ("/keys", "API keys", "keys"), ("/security", "One-time code", "security")),
    ),
)
FUNNEL = (("impressions", "Impressions"), ("clicks", "Clicks"), ("applied", "Applied"), ("approved", "Approved"),
          ("funded", "Funded"))  # fmt: skip
DONE = {  # what a page says after it did something
    "saved": "Saved. The bidders have it within two seconds.",
    "made": "Made, as a draft. Nothing is bid for it until it goes live.",
    "paused": "Paused. No bid is made for it any more.",
    "ended": "Ended. Within two seconds everybody is bid for as usual.",
    "resumed": "Running. Its spend shows here within seconds.",
    "undone": "Undone.",
    "revoked": "Revoked.",
    "asked": "It waits for a second person's approval now.",
    "approved": "Approved. It is live within two seconds.",
    "returned": "Sent back. Nothing was changed.",
    "totp": "From now on we ask for a code when you sign in.",
    "kept": "Saved. Its link is in the list of saved reports.",
    "removed": "Removed.",
    "user": "The user can sign in now.",
}


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        **{"money": show.money, "amount": show.amount, "count": show.count, "share": show.share, "when": show.when},
        **{
            "difference": show.difference,
            "compact": show.compact,
            "change": show.change,
            "ratio": show.ratio,
            "field": show.field,
        },
    }
    environment.globals["plot"] = plot
    return environment


_TEMPLATES = _environment()


def _nav(by: Identity | None) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """What ``by`` can open."""
    admin = by is not None and by.may_anywhere(ADMIN)
    return [(group, [link for link in links if admin or link[0] != "/users"]) for group, links in NAV]


class Page:
    """``form``: the fields that were posted, the last of each name; ``by``: who it is (None: nobody yet)."""

    def __init__(self, services: Services, request: Request, body: bytes) -> None:
        self.services, self.request = services, request
        try:
            self.fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS) if body else {}
        except (UnicodeDecodeError, ValueError):
            raise ApiError(400, "form", "that is not a form of ours") from None
        self.form = {name: values[-1] for name, values in self.fields.items()}
        self.by = identify(services, request)
        self.lang = language_of(request)

    @property
    def person(self) -> Identity:
        """Who it is; only where a route asks for somebody."""
        assert self.by is not None
        return self.by

    @property
    def ref(self) -> int:
        """The id in the path."""
        return int(self.request.path_params.get("id", 0))

    def query(self, kind: type[Any]) -> Any:
        """The query string as a type. Raises 400."""
        given = {k: v for k, v in self.request.query_params.items() if k not in ("lang", "done")}
        try:
            return msgspec.convert(given, kind, strict=False)
        except msgspec.ValidationError as error:
            raise wrong_address(error) from None

    def numbers(self, name: str) -> list[int]:
        """What boxes of that name were ticked, as ids."""
        return [int(v) for v in self.fields.get(name, ()) if v.isascii() and v.isdecimal() and len(v) < 16]

    def link(self, **changes: Any) -> str:
        """This page's address with some of the query changed (None: left out)."""
        return show.address(self.request.url.path, {**self.request.query_params, **changes})

    @cached_property
    def words(self) -> Callable[[str], str]:
        """The function that translates."""
        return translator(self.lang)

    def show(self, template: str, status: int = 200, **values: Any) -> Response:
        """A page."""
        by, done = self.by, DONE.get(self.request.query_params.get("done", ""), "")
        shared: dict[str, Any] = {
            "by": by, "lang": LANGUAGES[self.lang], "path": self.request.url.path, "_": self.words, "link": self.link,
            "nav": _nav(by), "funnel": FUNNEL, "problem": None, "wrong": {}, "form": {}, "done": done,
            "waiting": review.count(self.services.catalog, by) if by is not None else 0,
            "may_report": by is not None and by.may_anywhere(REPORT),
            "may_edit": by is not None and by.may_anywhere(EDIT),
        }  # fmt: skip
        if values.get("problem") is not None:
            values["problem"] = problem_in(self.lang, values["problem"], lambda name: self.words(show.field(name)))
        if self.lang == "zh" and values.get("wrong"):
            values["wrong"] = {name: refusal(text) for name, text in values["wrong"].items()}
        text = _TEMPLATES.get_template(template).render({**shared, **values})
        response = HTMLResponse(text, status)
        if "lang" in self.request.query_params:
            response.set_cookie(LANGUAGE, self.lang, httponly=True, samesite="lax", max_age=365 * 86_400)
        return response


Handler = Callable[[Page], Response]


def see(path: str, done: str = "") -> Response:
    """Go there; ``done`` of `DONE` is said at the top."""
    return RedirectResponse(path + (("&" if "?" in path else "?") + "done=" + done if done else ""), 303)


def wrong_address(error: msgspec.ValidationError) -> ApiError:
    """400, naming the part of the query that is at fault."""
    name = str(error).rpartition("$.")[2].rstrip("`")
    return ApiError(400, "query", f"the address has a wrong `{name}`; open the page anew from the menu")


def wrong_fields(error: ApiError) -> dict[str, str]:
    """What is wrong, by the last step of its path: as forms name their fields."""
    return {f.field.split(".")[-1]: f.message for f in error.problem.fields}
