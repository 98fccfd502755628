"""Changing between NVIDIA's driver and this one on a node whose pods run on.

``nvidia_checkpoint`` reads NVIDIA's checkpoint and ``nvidia_writing`` writes it. ``adopt`` makes records of ours out of
it and out of CDI files that nobody has a record of; ``hand_over`` puts our records into NVIDIA's form;
``kubelet_claims`` reads which claims the kubelet still has. All that is pure. ``take_over`` does it with the node's
files, as a part of the plugin.
"""
