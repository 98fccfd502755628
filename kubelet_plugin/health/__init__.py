"""Health of devices, and the stream that tells the kubelet of it."""
