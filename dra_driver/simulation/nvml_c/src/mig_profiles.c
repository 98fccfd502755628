/* MIG mode, at once on Hopper and newer and after a reset on Ampere, and the table of GPU instance profiles (mig/mode.py,
 * mig/profiles.py). */
#include <stdio.h>
#include <string.h>

#include "gpu.h"
#include "mig.h"

enum { PROFILE_COUNT = 18 }; /* NVML_GPU_INSTANCE_PROFILE_COUNT of driver 580 */

bool is_mig_on(const Call *call) { return has_mig(call->product) && json_is_true(call->gpu, "migEnabled"); }

nvmlReturn_t find_profile(const Call *call, unsigned int id, Profile *profile) {
    if (!has_mig(call->product)) return NVML_ERROR_NOT_SUPPORTED;
    return profile_by(call->product, "id", id, profile) ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}

static nvmlReturn_t mode(const Call *call, unsigned int *current, unsigned int *pending) {
    if (!has_mig(call->product)) return NVML_ERROR_NOT_SUPPORTED;
    if (current == NULL || pending == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    *current = json_is_true(call->gpu, "migEnabled");
    *pending = json_is_true(call->gpu, "migPending");
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
    WITH(device, GPU, mode(&call, current, pending));
}

typedef struct {
    bool wanted;
    nvmlReturn_t status;
} Mode;

static void to_mode(Edit *edit, bool enabled, bool pending) {
    if (enabled != json_is_true(edit->gpu, "migEnabled"))
        json_set(edit->arena, edit->gpu, "instances", json_new(edit->arena, JSON_ARRAY));
    set_flag(edit, "migEnabled", enabled);
    set_flag(edit, "migPending", pending);
    count_mig_change(edit);
}

static nvmlReturn_t request_mode(Edit *edit) {
    Mode *mode = edit->context;
    bool enabled = json_is_true(edit->gpu, "migEnabled"), pending = json_is_true(edit->gpu, "migPending");
    const char *architecture = json_text(edit->call->product, "architecture");
    if (json_first(edit->gpu, "instances") != NULL && !mode->wanted) return NVML_ERROR_IN_USE;
    mode->status = NVML_SUCCESS;
    if (mode->wanted == enabled) {
        if (pending != mode->wanted) to_mode(edit, enabled, mode->wanted);
        return NVML_SUCCESS;
    }
    if (architecture != NULL && strcmp(architecture, "Ampere") == 0) mode->status = NVML_ERROR_RESET_REQUIRED;
    else if (is_used(edit->gpu, json_text(edit->gpu, "uuid"))) mode->status = NVML_ERROR_IN_USE;
    to_mode(edit, mode->status == NVML_SUCCESS ? mode->wanted : enabled, mode->wanted);
    return NVML_SUCCESS;
}

static nvmlReturn_t set_mode(const Call *call, unsigned int wanted, nvmlReturn_t *status) {
    if (!has_mig(call->product)) return NVML_ERROR_NOT_SUPPORTED;
    if (status == NULL || wanted > 1) return NVML_ERROR_INVALID_ARGUMENT;
    if (!is_privileged(call->state)) return NVML_ERROR_NO_PERMISSION;
    Mode mode = {.wanted = wanted == 1};
    nvmlReturn_t answer = change_gpu(call, request_mode, &mode);
    if (answer == NVML_SUCCESS) *status = mode.status;
    return answer;
}

NVML_API nvmlReturn_t nvmlDeviceSetMigMode(nvmlDevice_t device, unsigned int wanted, nvmlReturn_t *status) {
    WITH(device, GPU, set_mode(&call, wanted, status));
}

static nvmlReturn_t profile_at(const Call *call, unsigned int index, Profile *profile) {
    if (index >= PROFILE_COUNT) return NVML_ERROR_INVALID_ARGUMENT;
    return profile_by(call->product, "enumIndex", index, profile) ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

#define FILL(info, profile)                                      \
    (info)->id = (unsigned int)(profile)->id;                    \
    (info)->isP2pSupported = (profile)->p2p;                     \
    (info)->sliceCount = (unsigned int)(profile)->slices;        \
    (info)->instanceCount = (unsigned int)(profile)->instances;  \
    (info)->multiprocessorCount = (unsigned int)(profile)->multiprocessors; \
    (info)->copyEngineCount = (unsigned int)(profile)->copy_engines; \
    (info)->decoderCount = (unsigned int)(profile)->engines[0];  \
    (info)->encoderCount = (unsigned int)(profile)->engines[1];  \
    (info)->jpegCount = (unsigned int)(profile)->engines[2];     \
    (info)->ofaCount = (unsigned int)(profile)->engines[3];      \
    (info)->memorySizeMB = (unsigned long long)(profile)->memory_mib

static nvmlReturn_t profile_info(const Call *call, unsigned int index, nvmlGpuInstanceProfileInfo_t *info) {
    Profile profile;
    if (info == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t answer = profile_at(call, index, &profile);
    if (answer != NVML_SUCCESS) return answer;
    FILL(info, &profile);
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfo(nvmlDevice_t device, unsigned int index,
                                                          nvmlGpuInstanceProfileInfo_t *info) {
    WITH(device, GPU, profile_info(&call, index, info));
}

static nvmlReturn_t fill_v2(nvmlReturn_t found, const Profile *profile, nvmlGpuInstanceProfileInfo_v2_t *info) {
    if (found != NVML_SUCCESS) return found;
    if (info == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    if (info->version != NVML_GPU_INSTANCE_PROFILE_INFO_V2) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    FILL(info, profile);
    snprintf(info->name, sizeof info->name, "MIG %s", profile->name);
    return NVML_SUCCESS;
}

static nvmlReturn_t profile_info_v(const Call *call, unsigned int index, nvmlGpuInstanceProfileInfo_v2_t *info) {
    Profile profile = {0};
    return fill_v2(profile_at(call, index, &profile), &profile, info);
}

NVML_API nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfoV(nvmlDevice_t device, unsigned int index,
                                                           nvmlGpuInstanceProfileInfo_v2_t *info) {
    WITH(device, GPU, profile_info_v(&call, index, info));
}

static nvmlReturn_t profile_info_by_id(const Call *call, unsigned int id, nvmlGpuInstanceProfileInfo_v2_t *info) {
    Profile profile = {0};
    return fill_v2(find_profile(call, id, &profile), &profile, info);
}

NVML_API nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfoByIdV(nvmlDevice_t device, unsigned int id,
                                                               nvmlGpuInstanceProfileInfo_v2_t *info) {
    WITH(device, GPU, profile_info_by_id(&call, id, info));
}

static nvmlReturn_t placements(const Call *call, unsigned int id, nvmlGpuInstancePlacement_t *placements,
                               unsigned int *count) {
    Profile profile;
    nvmlReturn_t answer = find_profile(call, id, &profile);
    if (answer != NVML_SUCCESS) return answer;
    if (count == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    unsigned int room = *count;
    *count = (unsigned int)json_count(profile.starts);
    if (placements == NULL) return NVML_SUCCESS; /* asks only how many */
    if (room < *count) return NVML_ERROR_INSUFFICIENT_SIZE;
    for (const Json *each = json_at(profile.starts, 0); each != NULL; each = each->next)
        *placements++ = (nvmlGpuInstancePlacement_t){(unsigned int)json_integer(each, 0), (unsigned int)profile.size};
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetGpuInstancePossiblePlacements_v2(nvmlDevice_t device, unsigned int id,
                                                                    nvmlGpuInstancePlacement_t *placement,
                                                                    unsigned int *count) {
    WITH(device, GPU, placements(&call, id, placement, count));
}
