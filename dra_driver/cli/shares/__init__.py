"""``gpu-dra shares``: who holds how much of which GPU, what is free, and how large a request still fits. Reads only.

``reading`` asks the cluster, ``holding`` thinks (pure), ``words`` and ``report`` write, ``watching`` follows changes,
``commands`` declares the command line.
"""
