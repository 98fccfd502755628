"""Tests of the parts of the benchmark of two drivers that need no cluster."""
