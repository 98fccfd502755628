"""What the kubelet plugin and the MPS supervisor of a node say to each other over a unix socket."""
