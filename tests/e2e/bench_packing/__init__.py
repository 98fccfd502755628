"""Tests of the parts of the benchmark of both packings of MIG devices that need no cluster."""
