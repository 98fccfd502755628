"""Changing between NVIDIA's driver and this one on a node whose pods run on.

``nvidia_checkpoint`` reads NVIDIA's checkpoint, ``nvidia_writing`` writes it; ``adopt`` makes of it, and of CDI files that
nobody has a record of, records of ours; ``hand_over`` makes NVIDIA's form of our records; ``kubelet_claims`` reads which
claims the kubelet still knows. These are pure. ``take_over`` is the part of the plugin that does it with the node's files.
"""
