"""The console: REST API and pages for marketers, over the catalog's SQL and the ledger's rollups."""
