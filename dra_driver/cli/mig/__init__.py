"""``gpu-dra mig``: what lies where on partitioned GPUs, and where more would go. Reads only.

``reading`` asks the cluster, ``gpu_map`` and ``planning`` think (pure), ``draw`` and ``report`` write, ``commands``
declares the command line.
"""
