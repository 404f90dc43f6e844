"""Alembic's entry: it runs on the connection that `dsp.ledger.database.migrate` hands over, in its transaction."""

from alembic import context

from dsp.ledger.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
