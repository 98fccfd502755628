"""Fractions at prepare."""
