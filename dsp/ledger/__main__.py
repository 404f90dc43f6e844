"""`python -m dsp.ledger [CONFIG.yaml]`: the ledger role alone."""

import sys
from pathlib import Path

from dsp.base.config import load_config
from dsp.base.logs import start_logging
from dsp.ledger.server import run_ledger

config = load_config(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
start_logging(config.logs, "ledger")
run_ledger(config)
