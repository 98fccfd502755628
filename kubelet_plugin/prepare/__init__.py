"""Prepare and unprepare claims on this node: check, plan, apply with a journal, recover.

``engine`` is the way in (threads, waiting, single flight); ``work`` does one call's claims; ``admission``, ``configs``
and ``plan`` are pure and decide; ``apply`` does and undoes; ``checkpoint`` remembers; ``recovery`` puts right what a
killed process has left. ``model`` has the values that cross to the DRA service.
"""
