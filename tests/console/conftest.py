"""A console over the small catalog, its users, and clients signed in as them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from argon2 import PasswordHasher
from catalog_file import GOOD
from console_names import OWNER, PASSWORD
from every_page import furnish
from playwright.sync_api import Page, sync_playwright
from starlette.testclient import TestClient

from dsp.base.config import Config
from dsp.bidder.sample import Sampled
from dsp.catalog.publish import catalog_path
from dsp.catalog.store import apply_file, open_catalog
from dsp.console import tables
from dsp.console.access import ALL
from dsp.console.app import build
from dsp.console.edge import COOKIE
from dsp.console.services import Services, open_services
from dsp.ledger.database import open_database
from dsp.model.bootstrap import bootstrap_model

CHROMIUM = shutil.which("chromium")


class Clock:
    """Unix seconds that stand still until told."""

    def __init__(self) -> None:
        self.now_s = 1_770_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with two advertisers, made once."""
    directory = tmp_path_factory.mktemp("console")
    config = Config(data_dir=str(directory))
    file = directory / "catalog.yaml"
    text = yaml.safe_load(GOOD)
    other = yaml.safe_load(GOOD)["advertisers"][0]
    other |= {"name": "Rival", "seat": "seat-2", "campaigns": [{**other["campaigns"][0], "name": "Autumn"}]}
    text["advertisers"].append(other)
    file.write_text(yaml.safe_dump(text))
    engine = open_catalog(catalog_path(config))
    apply_file(engine, file)
    tables.create(engine)
    engine.dispose()
    open_database(config.path("ledger.db")).dispose()
    return directory


@pytest.fixture
def config(tmp_path: Path, template: Path) -> Config:
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return Config(data_dir=str(tmp_path))


@pytest.fixture
def services(config: Config, clock: Clock) -> Iterator[Services]:
    services = open_services(config, clock, PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    yield services
    services.catalog.engine.dispose()
    services.reports.books.dispose()


@pytest.fixture
def sign_in(services: Services) -> Callable[..., TestClient]:
    """A client with a new user's session and CSRF token: sign_in(role, advertiser id)."""
    counter = iter(range(1000))
    app = build(services)

    def make(role: str = "owner", advertiser: int = ALL) -> TestClient:
        email = f"{role}{next(counter)}@bank.example"
        services.accounts.add_user(OWNER, email, PASSWORD, {advertiser: role})
        secret = services.accounts.sign_in(email, PASSWORD, "", "test")
        identity = services.accounts.by_session(secret)
        assert identity is not None
        client = TestClient(app, headers={"x-csrf-token": identity.csrf}, raise_server_exceptions=False)
        client.cookies.set(COOKIE, secret)
        return client

    return make


@pytest.fixture
def owner(sign_in: Callable[..., TestClient]) -> TestClient:
    return sign_in()


@pytest.fixture
def anyone(services: Services) -> TestClient:
    """Nobody yet."""
    return TestClient(build(services), raise_server_exceptions=False, follow_redirects=False)


@pytest.fixture
def full(services: Services, sign_in: Callable[..., TestClient]) -> TestClient:
    """The owner of a console with something of everything."""
    owner = sign_in()
    furnish(services, owner, sign_in("trader", 1))
    return owner


@pytest.fixture
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The owner of a console in which nothing was ever made."""
    config = Config(data_dir=str(tmp_path_factory.mktemp("empty")))
    open_database(config.path("ledger.db")).dispose()
    services = open_services(config, hasher=PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    services.accounts.add_owner("me@bank.example")
    secret = services.accounts.use_link(services.accounts.make_link(), "me@bank.example", "")
    identity = services.accounts.by_session(secret)
    assert identity is not None
    client = TestClient(build(services), headers={"x-csrf-token": identity.csrf}, raise_server_exceptions=False)
    client.cookies.set(COOKIE, secret)
    yield client
    services.catalog.engine.dispose()
    services.reports.books.dispose()


@pytest.fixture
def page() -> Iterator[Page]:
    if CHROMIUM is None:
        if os.environ.get("DSP_REQUIRE_BROWSER"):
            pytest.fail("no Chromium is installed")
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(bypass_csp=True)  # for axe alone: the policy is tested in test_attacks
        yield context.new_page()
        browser.close()


def ask(**changes: Any) -> dict[str, Any]:
    """A request for a 300x250 banner in the US."""
    imp = {"id": "1", "banner": {"w": 300, "h": 250}, "bidfloor": 0.01}
    return {
        "id": "r", "at": 1, "tmax": 200, "imp": [imp], "cur": ["USD"],
        "site": {"domain": "news.example", "publisher": {"id": "p"}},
        "device": {"geo": {"country": "USA"}, "os": "ios"},
        **changes,
    }  # fmt: skip


@pytest.fixture
def traffic(config: Config, owner: TestClient) -> Config:
    """Two requests it could take, one from elsewhere, one that asks for another size; each stands for 50."""
    bootstrap_model(config)
    exchange = owner.get("/api/v1/references").json()["exchanges"][0]["name"]
    other_size = {"id": "1", "banner": {"w": 111, "h": 222}}
    bodies = [ask(), ask(), ask(device={"geo": {"country": "FRA"}, "os": "ios"}), ask(imp=[other_size])]
    directory = Path(config.path("log", "requests"))
    directory.mkdir(parents=True)
    lines = [msgspec.json.encode(Sampled(1000 * i, exchange, 50, body)) for i, body in enumerate(bodies)]
    (directory / "w.jsonl").write_bytes(b"\n".join(lines))
    return config
