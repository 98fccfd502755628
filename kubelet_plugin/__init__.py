"""The kubelet plugin: hardware, registration, prepare and unprepare on one node.

grpcio reads GRPC_ENABLE_FORK_SUPPORT when it is first imported. Its fork handlers confuse the pollers when a handler
starts a subprocess (grpc #43055), so they are switched off here, before any module of this package imports grpc.
"""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
