"""``gpu-dra shares``: who holds how much of which GPU, what is free, and how large a request still fits. Reads only.

``reading`` asks the cluster and ``fences`` reads what fences fractions; ``holding`` thinks (pure) and answers with
values of ``use``; ``words``, ``report`` (tables) and ``document`` (JSON) write; ``watching`` follows changes;
``commands`` declares the command line.
"""
