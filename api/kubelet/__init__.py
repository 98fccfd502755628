"""The protocols between kubelet and DRA driver: our .proto files, the modules generated from them, and their services.

``services`` is what a server or a client imports. ``python -m api.protos`` makes the ``*_pb2`` modules.
"""
