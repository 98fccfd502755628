"""libnvidia-ml.so.1 as a real library, in C (``src``), over the state file of simulated hardware.

Any process can load it: programs in C and Go, and production code, which then meets a C library. It answers as the
simulation in Python does (``simulation.hardware.library``), call by call, by the same rules on the same file; a
contract test holds the two together. ``building`` compiles it where there is a compiler.

It is of C11, libc and threads only. Beyond what Python serves it has what programs ask for that list GPUs: topology,
NUMA nodes, UUIDs as structures. A function that a driver version or a fault takes away answers "function not found",
since a library cannot hide a symbol.
"""
