"""Measurements on a real node: pods, restarts, publication. ``python -m e2e.bench``."""
