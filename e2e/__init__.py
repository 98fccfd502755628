"""Suites that run on real clusters."""
