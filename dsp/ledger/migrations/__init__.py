"""Changes of the books' tables, oldest first (Alembic). A fresh database is made from `dsp.ledger.schema` at once."""
