"""Measurements, not tests: ``make bench`` runs them and prints tables; docs/dev/performance.md says what they are about."""
