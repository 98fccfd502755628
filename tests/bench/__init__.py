"""Measurements, not tests: ``make bench`` runs them and prints the table of docs/dev/performance.md."""
