"""Everything that stands in for the real thing. Nothing of it is needed on a real node.

hardware     simulated GPUs at NVML's C interface, their state file, a node's file tree, nvidia-smi
store        the Kubernetes API in memory; validation holds the rules of the real server
apiserver    the same store behind HTTP
controllers  what kube-controller-manager does for claims and pods
scheduler    kube-scheduler's part of DRA, on our allocator
kubelet      the real registration and DRA protocols over real sockets
runtime      containers as CDI makes them
cluster      all of it put together, with our controller and plugins as real processes"""
