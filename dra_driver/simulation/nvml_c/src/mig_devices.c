/* MIG devices: a GPU's compute instances by index, and what NVML tells of one by its device handle (mig/devices.py). */
#include "gpu.h"
#include "mig.h"

NVML_API nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count) {
    WITH(device, GPU, give_number(count, most_mig_devices(call.product)));
}

static nvmlReturn_t by_index(const Call *call, unsigned int index, nvmlDevice_t *device) {
    if (!has_mig(call->product)) return NVML_ERROR_NOT_SUPPORTED;
    if (index >= most_mig_devices(call->product)) return NVML_ERROR_INVALID_ARGUMENT;
    if (!is_mig_on(call)) return NVML_ERROR_NOT_FOUND;
    for (Instance at = {0}; next_mig_device(call->gpu, &at); index--) {
        if (index > 0) continue;
        Target target = compute_target(MIG_DEVICE, call->target.gpu, at.instance, at.compute);
        return give_handle(device, &target);
    }
    return NVML_ERROR_NOT_FOUND;
}

NVML_API nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *mig) {
    WITH(device, GPU, by_index(&call, index, mig));
}

static nvmlReturn_t ids(const Call *call, unsigned int *gpu_instance, unsigned int *compute_instance) {
    Instance found;
    if (gpu_instance == NULL && compute_instance == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t answer = find_instance(call->gpu, &call->target, &found);
    if (answer != NVML_SUCCESS) return answer;
    if (gpu_instance != NULL) *gpu_instance = (unsigned int)json_number(found.instance, "id", 0);
    if (compute_instance != NULL) *compute_instance = (unsigned int)json_number(found.compute, "id", 0);
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned int *id) {
    WITH(device, MIG_DEVICE, ids(&call, id, NULL));
}

NVML_API nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned int *id) {
    WITH(device, MIG_DEVICE, ids(&call, NULL, id));
}

static nvmlReturn_t parent(const Call *call, nvmlDevice_t *device) {
    Target target = gpu_target(call->target.gpu);
    return give_handle(device, &target);
}

NVML_API nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t mig, nvmlDevice_t *device) {
    WITH(mig, MIG_DEVICE, parent(&call, device));
}

/* Engines and memory are the GPU instance's: its compute instances share them. */
static nvmlReturn_t attributes_of(const Call *call, nvmlDeviceAttributes_t *attributes) {
    Instance found;
    if (attributes == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t answer = find_with_profile(call, &found);
    if (answer != NVML_SUCCESS) return answer;
    const Profile *profile = &found.profile;
    int64_t slices = json_number(found.compute, "slices", 0);
    *attributes = (nvmlDeviceAttributes_t){
        .multiprocessorCount = (unsigned int)multiprocessors(call->product, profile, slices),
        .sharedCopyEngineCount = (unsigned int)profile->copy_engines,
        .sharedDecoderCount = (unsigned int)profile->engines[0],
        .sharedEncoderCount = (unsigned int)profile->engines[1],
        .sharedJpegCount = (unsigned int)profile->engines[2],
        .sharedOfaCount = (unsigned int)profile->engines[3],
        .gpuInstanceSliceCount = (unsigned int)profile->slices,
        .computeInstanceSliceCount = (unsigned int)slices,
        .memorySizeMB = (unsigned long long)profile->memory_mib,
    };
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes) {
    WITH(device, MIG_DEVICE, attributes_of(&call, attributes));
}
