/* How GPUs lie in the machine, for programs that choose neighbours: PCIe roots and NUMA nodes. There is no NVLink and no
 * fabric in a machine description, so those answer "not supported", as boards do that have none. */
#include <string.h>

#include "gpu.h"

NVML_API nvmlReturn_t nvmlDeviceGetNumaNodeId(nvmlDevice_t device, unsigned int *node) {
    WITH(device, GPU,
         json_get(call.described, "numaNode") == NULL ? NVML_ERROR_NOT_SUPPORTED
                                                      : give_number(node, json_number(call.described, "numaNode", 0)));
}

enum { LEVEL_SAME = 0, LEVEL_HOST_BRIDGE = 30, LEVEL_NUMA_NODE = 40, LEVEL_SYSTEM = 50 }; /* nvmlGpuTopologyLevel_t */

static nvmlReturn_t common_ancestor(const Call *call, nvmlDevice_t other_device, unsigned int *level) {
    Target other;
    if (!handle_find(other_device, GPU, &other) || level == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    if (gpu_is_lost(call->state, other.gpu)) return NVML_ERROR_GPU_IS_LOST;
    const Json *described = json_at(json_get(call->hardware, "gpus"), other.gpu);
    const char *roots[] = {json_text(call->described, "pcieRoot"), json_text(described, "pcieRoot")};
    int64_t nodes[] = {json_number(call->described, "numaNode", -1), json_number(described, "numaNode", -1)};
    if (other.gpu == call->target.gpu) *level = LEVEL_SAME;
    else if (roots[0] != NULL && roots[1] != NULL && strcmp(roots[0], roots[1]) == 0) *level = LEVEL_HOST_BRIDGE;
    else *level = nodes[0] >= 0 && nodes[0] == nodes[1] ? LEVEL_NUMA_NODE : LEVEL_SYSTEM;
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t one, nvmlDevice_t other, unsigned int *level) {
    WITH(one, GPU, common_ancestor(&call, other, level));
}

NVML_API nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int link, unsigned int *active) {
    (void)link, (void)active;
    WITH(device, GPU, NVML_ERROR_NOT_SUPPORTED);
}

NVML_API nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned int link, nvmlPciInfo_t *pci) {
    (void)link, (void)pci;
    WITH(device, GPU, NVML_ERROR_NOT_SUPPORTED);
}

NVML_API nvmlReturn_t nvmlDeviceGetGpuFabricInfo(nvmlDevice_t device, void *info) {
    (void)info;
    WITH(device, GPU, NVML_ERROR_NOT_SUPPORTED);
}

NVML_API nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, void *info) {
    (void)info;
    WITH(device, GPU, NVML_ERROR_NOT_SUPPORTED);
}
