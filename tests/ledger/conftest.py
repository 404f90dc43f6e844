import os

import pytest
from ledger_world import World

from bench.postgres import Postgres, binaries
from dsp.base.config import Config, LedgerConfig


@pytest.fixture
def config():
    return Config(ledger=LedgerConfig(skew_s=2.0))


@pytest.fixture
def world(config):
    """In memory."""
    world = World(":memory:", config=config)
    yield world
    world.books.close()


@pytest.fixture(scope="session")
def postgres():
    """A real server; where none is installed its tests are skipped, unless DSP_REQUIRE_POSTGRES is set."""
    if binaries() is None and not os.environ.get("DSP_REQUIRE_POSTGRES"):
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    server = Postgres()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    """An empty database: a file's path, or a URL."""
    return tmp_path / "ledger.db" if request.param == "sqlite" else request.getfixturevalue("postgres").create()


@pytest.fixture
def disk_world(config, database):
    """On disk, so that it can be restarted."""
    world = World(database, config=config)
    yield world
    world.books.close()
