"""The strongest fence of a share: the driver limits the GPU's memory for the cgroup of each container that has it.

A container's cgroup is there only once the runtime makes the container, so the limits are set by an OCI hook, before
the container's first process runs: no answer, no container.

    runtime ──> hook (sh, on the host) ──> folder of requests ──> server ──> keeper ──> NVML
                                                                                 └──> records

Who owns what: ``hook`` the script and where it lies, ``requests`` how it hands over, ``server`` the threads that
answer, ``container`` which cgroup a request is about, ``keeper`` the shares and their locks, ``applied`` one cgroup on
one GPU, ``records`` what is remembered of that, ``edits`` what CDI says, ``room`` all of them put together. The kind
that asks for fences is elsewhere; here is the seam it meets: :class:`~kubelet_plugin.memory_fence.keeper.Fences`.

Each container of a share may have all of it: where several containers use one claim, it is each that is fenced, and not
all together.
"""
