"""From what was found on a node to what is done to a container: with NVIDIA's hooks, or without any. Pure.

*With hooks* is what NVIDIA's driver writes (pkg/nvcdi of nvidia-container-toolkit 1.19): libraries are mounted under
their versioned names where the host has them; ``nvidia-cdi-hook`` makes the links, runs ldconfig in the container's
root, prefers a newer CUDA compatibility library of the image, hides ``/proc/driver/nvidia/params`` and, from toolkit
1.20 on, tells EGL and Vulkan which GPUs are the container's.

*Hook-free* is for a host without the toolkit: nothing runs, so everything is a mount. Each library is mounted under its
versioned name and under each of its link names (``libcuda.so.1``, ``libcuda.so``), in both default folders of glibc
(``/usr/lib64`` and ``/usr/lib/<arch>-linux-gnu``: Red Hat's and Debian's). The dynamic loader looks there after its
cache, so programs find the driver in any glibc image, without ldconfig, whatever the host's distribution is.
``LD_LIBRARY_PATH`` is left alone on purpose: a CDI variable replaces the container's own value, which CUDA images set.
What hook-free does not do: prefer the image's CUDA compatibility library, hide ``/proc/driver/nvidia/params``, make
``/dev/dri/by-path`` links. An image with a libcuda of its own in its loader's cache keeps that one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from dra_driver.cdi.device_nodes import FoundNode
from dra_driver.cdi.driver_files import DriverFiles, Library
from dra_driver.cdi.hooks import APPLICATION_PROFILE, HookProgram
from dra_driver.cdi.roots import Root
from dra_driver.cdi.spec import ContainerEdits, Hook, Mount
from dra_driver.hardware.model import Gpu

MOUNT_OPTIONS = ("ro", "nosuid", "nodev", "rbind", "rprivate")
SOCKET_OPTIONS = ("nosuid", "nodev", "rbind", "rprivate", "noexec")

# Stops nvidia-container-runtime and its legacy hook from adding GPUs of their own to the container.
_NO_LEGACY_INJECTION = "NVIDIA_VISIBLE_DEVICES=void"


def with_hooks(files: DriverFiles, nodes: Sequence[FoundNode], root: Root, program: HookProgram) -> ContainerEdits:
    """Common edits. The hooks' order is nvcdi's (common-nvml.go: graphics, driver files, application profile)."""
    folders = sorted({library.folder for library in files.libraries})
    hooks = [
        _hook(program, "create-symlinks", *_link_arguments(links))
        for links in (_gbm_links(files.libraries), _library_links(files.libraries))
        if links
    ]
    hooks += [
        _hook(program, "enable-cuda-compat", f"--host-driver-version={files.version}"),
        _hook(program, "update-ldcache", *(part for folder in folders for part in ("--folder", folder))),
        _hook(program, "disable-device-node-modification"),
    ]
    if program.application_profile:
        hooks.append(_hook(program, APPLICATION_PROFILE))
    mounts = [_mount(root, library.source, library.path) for library in files.libraries]
    return _common(files, nodes, root, files.library_folder, mounts, hooks)


def hook_free(
    files: DriverFiles, nodes: Sequence[FoundNode], root: Root, library_folders: Sequence[str]
) -> ContainerEdits:
    """Common edits without hooks; ``library_folders``: where the container's loader looks by itself."""
    own_folder = files.library_folder
    libcuda_folder = own_folder if own_folder in library_folders else library_folders[0]
    mounts = [
        _mount(root, library.source, f"{folder}{library.folder.removeprefix(own_folder)}/{name}")
        for folder in library_folders
        for library in files.libraries
        for name in _all_names(library)
    ]
    mounts += [
        _mount(root, library.source, link.replace(own_folder, folder, 1))
        for folder in library_folders
        for library in files.libraries
        for _target, link in _gbm_links([library])
    ]
    return _common(files, nodes, root, libcuda_folder, mounts, [])


def for_gpu(gpu: Gpu, nodes: Sequence[FoundNode], program: HookProgram | None) -> ContainerEdits:
    """Device edits of a whole GPU; with a hook also the ``/dev/dri/by-path`` links of its DRM nodes."""
    hooks: tuple[Hook, ...] = ()
    links = [
        (f"../{name}", f"/dev/dri/by-path/pci-{gpu.pci_bus_id}-{'render' if name.startswith('renderD') else 'card'}")
        for name in (found.node.path.removeprefix("/dev/dri/") for found in nodes)
        if not name.startswith("/")
    ]
    if program and links:
        hooks = (_hook(program, "create-symlinks", *_link_arguments(links)),)
    return ContainerEdits(
        device_nodes=tuple(found.node for found in nodes), hooks=hooks, additional_gids=_groups(nodes)
    )


def _common(
    files: DriverFiles,
    nodes: Sequence[FoundNode],
    root: Root,
    libcuda_folder: str,
    library_mounts: Iterable[Mount],
    hooks: Iterable[Hook],
) -> ContainerEdits:
    mounts = [
        *library_mounts,
        *(_mount(root, file.source, file.path) for file in files.files),
        *(Mount(root.host_path(socket.source), socket.path, SOCKET_OPTIONS) for socket in files.sockets),
    ]
    return ContainerEdits(
        env=(f"NVIDIA_CTK_LIBCUDA_DIR={libcuda_folder}", _NO_LEGACY_INJECTION),
        device_nodes=tuple(sorted((found.node for found in nodes), key=lambda node: node.path)),
        hooks=tuple(hooks),
        mounts=tuple(sorted(mounts, key=_depth_and_path)),
        additional_gids=_groups(nodes),
    )


def _depth_and_path(mount: Mount) -> tuple[int, str]:
    """Parents before children, as the CDI library orders mounts itself, then by name."""
    return mount.container_path.count("/"), mount.container_path


def _mount(root: Root, source: str, container_path: str) -> Mount:
    return Mount(root.host_path(source), container_path, MOUNT_OPTIONS)


def _groups(nodes: Iterable[FoundNode]) -> tuple[int, ...]:
    return tuple(sorted({found.group for found in nodes if found.group is not None}))


def _hook(program: HookProgram, *arguments: str) -> Hook:
    return Hook("createContainer", program.path, (*program.arguments, *arguments), ("NVIDIA_CTK_DEBUG=false",))


def _link_arguments(links: Iterable[tuple[str, str]]) -> Iterator[str]:
    for target, link in links:
        yield "--link"
        yield f"{target}::{link}"


def _all_names(library: Library) -> Iterator[str]:
    yield from dict.fromkeys((library.name, *(link for _target, link in _short_links(library))))


def _library_links(libraries: Iterable[Library]) -> list[tuple[str, str]]:
    """(what the link says, path of the link) for all libraries, in their order."""
    return [(target, f"{library.folder}/{link}") for library in libraries for target, link in _short_links(library)]


def _short_links(library: Library) -> Iterator[tuple[str, str]]:
    """Links beside one library: those that programs expect though no package brings them, then those of the host."""
    expected: dict[str, str] = {}
    if library.stem in ("libcuda", "libnvidia-opticalflow"):
        expected[f"{library.stem}.so"] = f"{library.stem}.so.1"  # programs dlopen the name without a version
    if library.stem == "libGLX_nvidia":
        expected["libGLX_indirect.so.0"] = library.name  # libglvnd's name for the default vendor
    for link, target in expected.items():
        yield target, link
    for link, target in library.links:
        if link not in expected:
            yield target, link


def _gbm_links(libraries: Iterable[Library]) -> list[tuple[str, str]]:
    """Mesa's libgbm loads its backend by this path only."""
    return [
        ("../libnvidia-allocator.so.1", f"{library.folder}/gbm/nvidia-drm_gbm.so")
        for library in libraries
        if library.stem == "libnvidia-allocator"
    ]
