"""The HTTP servers of this project: what all of them have in common, and no more."""
