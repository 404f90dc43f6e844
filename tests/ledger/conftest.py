import pytest
from ledger_world import World

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


@pytest.fixture
def disk_world(config, tmp_path):
    """In a file, so that it can be restarted."""
    world = World(tmp_path / "ledger.db", config=config)
    yield world
    world.books.close()


@pytest.fixture
def database(tmp_path):
    """An empty database."""
    return tmp_path / "ledger.db"
