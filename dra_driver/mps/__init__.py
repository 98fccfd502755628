"""MPS as the kubelet plugin and the supervisor both see it: sharing groups, their folders, the limits of hardware."""
