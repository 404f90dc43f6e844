"""Measurements: the standard benchmark, its load generator, and smaller benches of one part each."""
