"""What every process of ours on a node needs: the driver's place and its NVML, and gRPC on a unix socket.

The kubelet plugin and the MPS supervisor share it, and it knows neither.
"""
