"""The embedded store behind HTTP."""
