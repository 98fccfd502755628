"""nvidia-smi of a simulated node: ``python -m dra_driver.simulation.hardware.smi STATE [OPTION ...]``.

``program`` is the command line and its table of commands, ``options`` what they have in common. ``show`` and ``query``
print, ``mig`` shows and changes MIG, ``policy`` how processes share a GPU.

What is printed has one description, for the program on a node and for the shell script in containers: ``facts`` are
the values (``from_nvml`` and ``from_state`` make them), ``fields`` and ``layout`` their texts, the table and the list,
``log_layout`` the log. ``script`` makes the shell script out of ``nvidia-smi.sh`` and these, ``script_table`` the part
of it that follows the state.
"""
