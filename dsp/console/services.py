"""What every request of the console works with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from argon2 import PasswordHasher

from dsp.base.config import Config
from dsp.base.console_metrics import ConsoleMetrics
from dsp.catalog.publish import catalog_path
from dsp.catalog.store import open_catalog
from dsp.console.accounts import Accounts
from dsp.console.catalog import Catalog
from dsp.console.export import Exports
from dsp.console.reports import Reports, open_books
from dsp.console.trials import Trials


@dataclass(frozen=True)
class Services:
    """Made once at start."""

    config: Config
    accounts: Accounts
    catalog: Catalog
    reports: Reports
    exports: Exports
    trials: Trials


def open_services(
    config: Config,
    clock: Callable[[], float] = time.time,
    hasher: PasswordHasher | None = None,
    metrics: ConsoleMetrics | None = None,
) -> Services:
    """Over the data directory of ``config``."""
    engine = open_catalog(catalog_path(config))
    accounts = Accounts(engine, clock, hasher)
    reports = Reports(engine, open_books(config))
    exports = Exports(engine, reports, config.path("reports"), clock, metrics or ConsoleMetrics())
    catalog = Catalog(engine, clock, config.console.approval_above)
    return Services(config, accounts, catalog, reports, exports, Trials(config, clock))
