"""``make gpu-check``: our code against the GPUs of this machine, and against a simulation of the same machine.

``checks`` says what is looked at and in which order. A question (``adapter``, ``codes``, ``files``) is asked on the
hardware; then the captured machine is simulated and the question is asked again; ``runner`` compares the facts, one by
one. ``read_only`` lets no call through that could change anything. ``report`` prints what came out.
"""
