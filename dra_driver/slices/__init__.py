"""Allocatable devices to ResourceSlices: cut into slices (``layout``), encoded (``encode``), compared (``diff``). Pure.

``layout.desired_slices`` and ``diff.plan_writes`` are the way through; ``features`` says what the API server can hold,
``fallback`` what is safe without it, ``render`` prints the result.
"""
