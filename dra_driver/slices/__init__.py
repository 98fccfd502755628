"""Allocatable devices to ResourceSlices and back: cut into slices (``cutting``), written as the API has them
(``encode``), read back (``decode``), compared (``diff``). Pure.

``cutting.desired_slices`` and ``diff.plan_writes`` are the way through; ``features`` says what the API server can hold,
``fallback`` what is safe without it, ``render`` prints the result.
"""
