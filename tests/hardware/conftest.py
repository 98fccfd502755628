"""Fixtures: a simulated node whose library stands in for libnvidia-ml during one test."""

from tests.simulated_node import make_node, no_library

__all__ = ["make_node", "no_library"]
