"""nvidia-smi of a simulated node: ``python -m dra_driver.simulation.hardware.smi STATE [OPTION ...]``.

``program`` is the command line and its table of commands, ``options`` what they have in common, ``mig`` shows and
changes MIG, ``policy`` how GPUs are shared, ``script`` is the node's ``usr/bin/nvidia-smi``, which users' containers
get too.
"""
