"""Reproducible benchmark runs: suites, records, comparison."""
