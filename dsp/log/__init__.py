"""Schema and files of decisions and outcomes."""
