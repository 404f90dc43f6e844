"""`dsp serve`: every role on this machine, on embedded defaults, under one data directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dsp.base.config import Config, ConfigError, load_config
from dsp.base.logs import logger, start_logging
from dsp.base.reload import changes
from dsp.cli.console import console_address, sign_in_link
from dsp.cli.edge import PARENT, config_of, refusing, write_config

log = logger(__name__)

TICK_S = 0.25  # also how soon a change of the catalog is published
RESTART_S, RESTART_MAX_S = 0.1, 30.0  # before a role is started again; doubled while it keeps dying
HEALTHY_S = 60.0  # a role that lived so long starts anew without a wait
PEOPLE = 100_000
RETAIN = "retain --every 3600"


def serve(
    context: typer.Context,
    example: Annotated[bool, typer.Option(help="Load the example into an empty data directory.")] = True,
) -> None:
    """Run ledger and bidder and publish the catalog when it changes, until SIGTERM or Ctrl-C."""
    config = config_of(context)
    from dsp.catalog.source import CatalogError
    from dsp.model.registry import ModelError

    with refusing(CatalogError, ModelError):
        first_start(config, example)
        Serving(config, partial(load_config, context.find_root().obj)).run()


def first_start(config: Config, example: bool) -> None:
    """Make what is missing: catalog and people of the example, a published snapshot, a model."""
    from dsp.catalog.current import current_path
    from dsp.catalog.publish import catalog_path, publish
    from dsp.catalog.store import apply_file, open_catalog
    from dsp.model.bootstrap import bootstrap_model
    from dsp.model.registry import current_dir

    if example and not catalog_path(config).exists():
        import dsp.catalog
        from dsp.market.people import People
        from dsp.market.profiles import write_profiles

        file = Path(dsp.catalog.__file__).parent / "example" / "catalog.yaml"
        engine = open_catalog(catalog_path(config))
        apply_file(engine, file)
        engine.dispose()
        publish(config)
        people = write_profiles(config, People.generate(PEOPLE, config.seed))
        print(f"first start: loaded the example, {people:,} people and {file.name}", flush=True)
    elif current_path(config) is None:
        publish(config)
    if current_dir(config) is None:
        bootstrap_model(config)
        print("first start: the model is a prior; `dsp train` learns from the logs", flush=True)


class Serving:
    """The roles as child processes: started in order, restarted when they die, ended in reverse."""

    def __init__(self, config: Config, read_config: Callable[[], Config] | None = None) -> None:
        self._config = config
        self._read_config = read_config or (lambda: config)
        self._file = write_config(config, config.path("run", "serve.settings.json"))
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._due_s: dict[str, float] = {}
        self._begun_s: dict[str, float] = {}
        self._wait_s: dict[str, float] = {}
        self._stopping = self._asked = False

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        from dsp.catalog.publish import publish_if_changed

        start_logging(self._config.logs, "serve")
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGHUP, self._ask)
        for role in ("ledger", "bidder", "model follow", "console", RETAIN):
            self._start(role)
        bidder, ledger = self._config.bidder, self._config.ledger
        print(f"bids     http://{bidder.http_host}:{bidder.http_port}/bid/{{exchange}}", flush=True)
        print(f"gRPC     {bidder.grpc_host}:{bidder.grpc_port} dsp.v1.Bidder/Bid", flush=True)
        print(f"metrics  http://{bidder.http_host}:{bidder.metrics_port}/metrics", flush=True)
        print(f"notices  http://{ledger.host}:{ledger.port}", flush=True)
        print(f"console  {console_address(self._config)}", flush=True)
        print(f"sign in  {sign_in_link(self._config)}  (once, within a day)", flush=True)
        try:
            while not self._stopping:
                time.sleep(TICK_S)
                self._tend()
                if self._asked:
                    self._asked = False
                    self._reload()
                publish_if_changed(self._config)
        finally:
            for role in (
                RETAIN,
                "console",
                "model follow",
                "bidder",
                "ledger",
            ):  # the bidder's last notices find a ledger
                self._end(role)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _ask(self, *_: object) -> None:
        self._asked = True

    def _reload(self) -> None:
        """Hand the configuration, read again, to the bidder; the other roles take theirs when they start."""
        try:
            config = self._read_config()
        except ConfigError as error:
            log.error("the configuration is not valid; the old one stays", why=str(error))
            return
        changed = list(changes(self._config, config))
        log.info("configuration read again; ledger, console and model take theirs when they start", changed=changed)
        if "data_dir" in changed:
            log.error("data_dir waits for a restart; the old configuration stays")
            return
        write_config(config, self._file)
        if self._children["bidder"].poll() is None:
            self._children["bidder"].send_signal(signal.SIGHUP)

    def _start(self, role: str) -> None:
        command = [sys.executable, "-m", "dsp.cli.main", "--config", str(self._file), *role.split()]
        # A session of its own: Ctrl-C reaches this process alone, which then ends the roles in order.
        self._begun_s[role] = time.monotonic()
        self._children[role] = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, PARENT: str(os.getpid())},
        )

    def _tend(self) -> None:
        for role, child in self._children.items():
            status = child.poll()
            if status is None:
                self._due_s.pop(role, None)
            elif role not in self._due_s:
                now_s = time.monotonic()
                wait_s = RESTART_S if now_s - self._begun_s[role] > HEALTHY_S else self._wait_s.get(role, RESTART_S)
                self._wait_s[role] = min(2 * wait_s, RESTART_MAX_S)
                self._due_s[role] = now_s + wait_s
                log.error("a role ended; starting it again", which=role, status=status, again_s=wait_s)
            elif time.monotonic() > self._due_s[role]:
                del self._due_s[role]
                self._start(role)

    def _end(self, role: str) -> None:
        child = self._children[role]
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(self._config.bidder.drain_s + 10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
