"""The embedded controllers."""
