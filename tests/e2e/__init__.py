"""Tests of the pure parts of ``e2e``; its suites need a cluster and are run by themselves."""
