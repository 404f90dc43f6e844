"""`dsp bidder`, `dsp publisher`: the role in this process, as containers run it; `dsp ledger` is `dsp.cli.ledger`."""

from __future__ import annotations

import signal
import time
from functools import partial

import typer

from dsp.base.config import load_config
from dsp.base.logs import logger, start_logging
from dsp.cli.edge import config_of, end_with_parent, refusing

log = logger(__name__)


def bidder(context: typer.Context) -> None:
    """Run the bidder: HTTP and gRPC workers, /metrics. SIGTERM drains, SIGHUP takes new settings, worker by worker."""
    config = config_of(context)
    end_with_parent()
    from dsp.ingress.supervisor import run_bidder

    start_logging(config.logs, "bidder")
    with refusing():
        raise typer.Exit(run_bidder(config, partial(load_config, context.find_root().obj)))


def publisher(context: typer.Context) -> None:
    """Publish the catalog whenever it changes, until SIGTERM; where there is no model yet, write the prior one."""
    config = config_of(context)
    end_with_parent()
    from dsp.catalog.publish import POLL_S, publish_if_changed
    from dsp.model.bootstrap import bootstrap_model
    from dsp.model.registry import ModelError, current_dir

    start_logging(config.logs, "publisher")
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    turn = config.path("run", "publisher.turn")
    with refusing(ModelError):
        turn.parent.mkdir(parents=True, exist_ok=True)
        if current_dir(config) is None:
            bootstrap_model(config)
        while not stopping:
            path = publish_if_changed(config)
            if path is not None:
                log.info("published", snapshot=path.name)
            turn.touch()
            time.sleep(POLL_S)


def compile_kernels() -> None:
    """Compile every kernel of the hot path into the cache, so that no worker has to; images are built with it."""
    import tempfile
    from pathlib import Path

    import dsp.catalog
    from dsp.base.config import BidderConfig, Config
    from dsp.bidder.engine import Engine
    from dsp.bidder.slices import Slices
    from dsp.catalog.current import current_path
    from dsp.catalog.layout import LI_ID
    from dsp.catalog.publish import catalog_path, publish
    from dsp.catalog.snapshot import Snapshot
    from dsp.catalog.store import apply_file, open_catalog
    from dsp.model.bootstrap import bootstrap_model

    begun_s = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        config = Config(data_dir=directory, bidder=BidderConfig(log_decisions=False))
        catalog = open_catalog(catalog_path(config))
        apply_file(catalog, Path(dsp.catalog.__file__).parent / "example" / "catalog.yaml")
        catalog.dispose()
        publish(config)
        bootstrap_model(config)
        path = current_path(config)
        assert path is not None
        engine = Engine.open(config, slices=Slices.fixed(Snapshot.load(path).li_i[:, LI_ID].copy()))
        engine.warm()
        engine.close()
    print(f"compiled in {time.monotonic() - begun_s:.1f} s")
