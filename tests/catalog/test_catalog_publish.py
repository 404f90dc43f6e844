"""Publishing: numbered files, one current, only when something changed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from catalog_file import GOOD, edited

from dsp.base.config import Config, LedgerConfig
from dsp.catalog.current import current_path
from dsp.catalog.publish import KEEP, Publisher, catalog_path, publish, publish_if_changed
from dsp.catalog.snapshot import Snapshot
from dsp.catalog.store import apply_file, open_catalog, set_status


@pytest.fixture
def config(tmp_path) -> Config:
    config = Config(data_dir=str(tmp_path / "var"))
    engine = open_catalog(catalog_path(config))
    (tmp_path / "c.yaml").write_text(GOOD)
    apply_file(engine, tmp_path / "c.yaml")
    engine.dispose()
    return config


def test_publishing_writes_a_file_and_points_to_it(config):
    assert current_path(config) is None
    path = publish(config)
    assert path.name == "000001.snap"
    assert current_path(config) == path
    snapshot = Snapshot.load(path)
    assert snapshot.version == 1
    assert snapshot.meta["public_url"] == config.ledger.public_url


def test_only_a_change_is_published(config):
    assert publish_if_changed(config) is not None
    assert publish_if_changed(config) is None
    engine = open_catalog(catalog_path(config))
    set_status(engine, 1, "paused")
    path = publish_if_changed(config)
    assert path is not None
    assert Snapshot.load(path).version == 2
    assert publish_if_changed(config) is None
    engine.dispose()


def test_a_new_process_does_not_publish_again(config):
    publish(config)
    assert Publisher(config).poll() is None


def test_a_changed_public_url_is_published(config):
    publish(config)
    moved = Config(data_dir=config.data_dir, ledger=LedgerConfig(public_url="https://ads.example"))
    path = publish_if_changed(moved)
    assert path is not None
    assert b"https://ads.example/n/" in Snapshot.load(path).template_json(0)


def test_an_offset_change_is_published(config):
    publisher = Publisher(config)
    publisher.poll(1.75e9)
    until_s = Snapshot.load(current_path(config)).meta["valid_until_s"]
    assert publisher.poll(until_s - 1) is None
    assert publisher.poll(until_s) is not None
    assert publisher.poll(until_s) is None


def test_old_files_go_and_mapped_ones_stay_readable(config):
    first = Snapshot.load(publish(config))
    for _ in range(KEEP + 1):
        publish(config)
    names = sorted(p.name for p in current_path(config).parent.glob("*.snap"))
    assert names == [f"{n:06}.snap" for n in range(3, KEEP + 3)]
    assert first.template_json(0).startswith(b'{"id":"%b"')


def test_a_damaged_current_file_is_replaced(config):
    path = publish(config)
    path.write_bytes(b"gone")
    again = Publisher(config).poll()
    assert again is not None
    assert Snapshot.load(again).version == 2


def test_publishers_at_the_same_time_take_different_numbers(config):
    publishers = [Publisher(config) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda p: p.publish(), publishers))
    assert len({p.name for p in paths}) == 4
    assert all(Snapshot.load(p).version == int(p.stem) for p in paths)


def test_a_wrong_file_publishes_nothing(config, tmp_path):
    publish(config)
    engine = open_catalog(catalog_path(config))
    (tmp_path / "c.yaml").write_text(edited(("margin: 20.5", "margin: x")))
    with pytest.raises(Exception, match="not an amount"):
        apply_file(engine, tmp_path / "c.yaml")
    engine.dispose()
    assert publish_if_changed(config) is None
