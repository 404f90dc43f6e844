"""Command line: wiring only."""
