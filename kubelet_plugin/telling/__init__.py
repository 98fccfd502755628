"""Telling people: Events, metrics, the words for failures."""
