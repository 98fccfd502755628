#!/bin/sh
# The kubelet sets these for the whole machine, namespaces or not (pkg/kubelet/cm/container_manager_linux.go,
# setupKernelTunables), and fails where it cannot. Here it writes into copies that only this node sees.
set -eu
mkdir -p /run/kernel-settings
for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
    kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    [ -e "/proc/sys/$name" ] || continue
    copy="/run/kernel-settings/${name##*/}"
    cat "/proc/sys/$name" >"$copy"
    mount --bind "$copy" "/proc/sys/$name"
done
