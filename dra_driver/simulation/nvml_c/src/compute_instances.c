/* Compute instances within a GPU instance: profiles by slices, made, listed, destroyed (mig/compute_instances.py). */
#include <stdio.h>

#include "gpu.h"
#include "mig.h"

enum { PROFILE_COUNT = 9, ENGINE_PROFILE_COUNT = 1 }; /* NVML_COMPUTE_INSTANCE_PROFILE_COUNT, ..._ENGINE_PROFILE_COUNT */

/* The slices that a profile stands for: by NVML's index "not supported" where the GPU instance cannot have them, by id an
 * invalid argument. The hardware's id is the same number as NVML's index. */
static nvmlReturn_t by_index(const Call *call, unsigned int index, unsigned int engines, Instance *found, int64_t *slices) {
    if (index >= PROFILE_COUNT || engines >= ENGINE_PROFILE_COUNT) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t answer = find_with_profile(call, found);
    *slices = compute_slices(index);
    if (answer != NVML_SUCCESS) return answer;
    return is_compute_size(found->profile.slices, *slices) ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

static nvmlReturn_t by_profile_id(const Call *call, unsigned int id, Instance *found, int64_t *slices) {
    nvmlReturn_t answer = find_with_profile(call, found);
    *slices = compute_slices(id);
    if (answer != NVML_SUCCESS) return answer;
    return is_compute_size(found->profile.slices, *slices) ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}

#define FILL(info, product, profile, size)                                                              \
    (info)->id = (unsigned int)compute_profile(size);                                                   \
    (info)->sliceCount = (unsigned int)(size);                                                          \
    (info)->instanceCount = (unsigned int)((profile)->slices / (size));                                 \
    (info)->multiprocessorCount = (unsigned int)multiprocessors((product), (profile), (size));          \
    (info)->sharedCopyEngineCount = (unsigned int)(profile)->copy_engines;                              \
    (info)->sharedDecoderCount = (unsigned int)(profile)->engines[0];                                   \
    (info)->sharedEncoderCount = (unsigned int)(profile)->engines[1];                                   \
    (info)->sharedJpegCount = (unsigned int)(profile)->engines[2];                                      \
    (info)->sharedOfaCount = (unsigned int)(profile)->engines[3]

static nvmlReturn_t profile_info(const Call *call, unsigned int index, unsigned int engines,
                                 nvmlComputeInstanceProfileInfo_t *info) {
    Instance found;
    int64_t slices;
    if (info == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t answer = by_index(call, index, engines, &found, &slices);
    if (answer != NVML_SUCCESS) return answer;
    FILL(info, call->product, &found.profile, slices);
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlGpuInstanceGetComputeInstanceProfileInfo(nvmlGpuInstance_t instance, unsigned int index,
                                                                   unsigned int engines,
                                                                   nvmlComputeInstanceProfileInfo_t *info) {
    WITH(instance, GPU_INSTANCE, profile_info(&call, index, engines, info));
}

static nvmlReturn_t profile_info_v(const Call *call, unsigned int index, unsigned int engines,
                                   nvmlComputeInstanceProfileInfo_v2_t *info) {
    Instance found;
    int64_t slices;
    if (info == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t answer = by_index(call, index, engines, &found, &slices);
    if (answer != NVML_SUCCESS) return answer;
    if (info->version != NVML_COMPUTE_INSTANCE_PROFILE_INFO_V2) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    FILL(info, call->product, &found.profile, slices);
    Buffer name = {0};
    print_device_name(&name, &found.profile, slices);
    snprintf(info->name, sizeof info->name, "MIG %s", name.data);
    buffer_free(&name);
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlGpuInstanceGetComputeInstanceProfileInfoV(nvmlGpuInstance_t instance, unsigned int index,
                                                                    unsigned int engines,
                                                                    nvmlComputeInstanceProfileInfo_v2_t *info) {
    WITH(instance, GPU_INSTANCE, profile_info_v(&call, index, engines, info));
}

static nvmlReturn_t placements(const Call *call, unsigned int id, nvmlComputeInstancePlacement_t *placements,
                               unsigned int *count) {
    Instance found;
    int64_t slices;
    nvmlReturn_t answer = by_profile_id(call, id, &found, &slices);
    if (answer != NVML_SUCCESS) return answer;
    if (count == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    unsigned int room = *count;
    *count = (unsigned int)(found.profile.slices / slices);
    if (placements == NULL) return NVML_SUCCESS;
    if (room < *count) return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned int each = 0; each < *count; each++)
        placements[each] = (nvmlComputeInstancePlacement_t){each * (unsigned int)slices, (unsigned int)slices};
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlGpuInstanceGetComputeInstancePossiblePlacements(nvmlGpuInstance_t instance, unsigned int id,
                                                                          nvmlComputeInstancePlacement_t *placement,
                                                                          unsigned int *count) {
    WITH(instance, GPU_INSTANCE, placements(&call, id, placement, count));
}

/* The first free start, -1 for none; how many there are. */
static int64_t free_start(const Json *instance, int64_t whole, int64_t slices, int64_t *count) {
    int64_t first = -1;
    *count = 0;
    for (int64_t start = 0; compute_starts_at(whole, slices, start); start += slices)
        if (is_compute_start_free(instance, slices, start)) {
            if (first < 0) first = start;
            ++*count;
        }
    return first;
}

static nvmlReturn_t capacity(const Call *call, unsigned int id, unsigned int *count) {
    Instance found;
    int64_t slices, number;
    nvmlReturn_t answer = by_profile_id(call, id, &found, &slices);
    if (answer != NVML_SUCCESS) return answer;
    free_start(found.instance, found.profile.slices, slices, &number);
    return give_number(count, number);
}

NVML_API nvmlReturn_t nvmlGpuInstanceGetComputeInstanceRemainingCapacity(nvmlGpuInstance_t instance, unsigned int id,
                                                                         unsigned int *count) {
    WITH(instance, GPU_INSTANCE, capacity(&call, id, count));
}

typedef struct {
    int64_t whole, slices;
    const nvmlComputeInstancePlacement_t *place; /* NULL: of NVML's choice */
    Target made;
} Creation;

static int64_t free_compute_id(const Json *instance) {
    int64_t id = 0;
    for (const Json *each = json_first(instance, "computeInstances"); each != NULL;)
        if (json_number(each, "id", -1) == id) {
            id++;
            each = json_first(instance, "computeInstances");
        } else each = each->next;
    return id;
}

static nvmlReturn_t make_compute_instance(Edit *edit) {
    Creation *wanted = edit->context;
    Instance found;
    nvmlReturn_t answer = find_instance(edit->gpu, &edit->call->target, &found);
    if (answer != NVML_SUCCESS) return answer;
    int64_t count, first = free_start(found.instance, wanted->whole, wanted->slices, &count);
    int64_t start = wanted->place == NULL ? first : wanted->place->start;
    if (start < 0 || !is_compute_start_free(found.instance, wanted->slices, start)) return NVML_ERROR_INSUFFICIENT_RESOURCES;
    int64_t id = free_compute_id(found.instance), created = count_creation(edit);
    char uuid[UUID_LENGTH];
    const char *gpu_uuid = json_text(edit->gpu, "uuid");
    mig_uuid(uuid, gpu_uuid == NULL ? "" : gpu_uuid, json_number(found.instance, "id", 0), id, created);
    Json *compute = json_new(edit->arena, JSON_OBJECT);
    json_set(edit->arena, compute, "id", json_new_number(edit->arena, id));
    json_set(edit->arena, compute, "uuid", json_new_text(edit->arena, uuid));
    json_set(edit->arena, compute, "slices", json_new_number(edit->arena, wanted->slices));
    json_set(edit->arena, compute, "start", json_new_number(edit->arena, start));
    json_set(edit->arena, compute, "created", json_new_number(edit->arena, created));
    insert_by_id(list_in(edit, found.instance, "computeInstances"), compute);
    count_mig_change(edit);
    wanted->made = compute_target(COMPUTE_INSTANCE, edit->call->target.gpu, found.instance, compute);
    return NVML_SUCCESS;
}

static nvmlReturn_t create(const Call *call, unsigned int id, const nvmlComputeInstancePlacement_t *place, void *instance) {
    Instance found;
    Creation wanted = {.place = place};
    nvmlReturn_t answer = by_profile_id(call, id, &found, &wanted.slices);
    if (answer != NVML_SUCCESS) return answer;
    wanted.whole = found.profile.slices;
    bool listed = place == NULL || (place->size == wanted.slices && compute_starts_at(wanted.whole, wanted.slices, place->start));
    if (!listed || instance == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    if (!is_privileged(call->state)) return NVML_ERROR_NO_PERMISSION;
    answer = change_gpu(call, make_compute_instance, &wanted);
    return answer == NVML_SUCCESS ? give_handle(instance, &wanted.made) : answer;
}

NVML_API nvmlReturn_t nvmlGpuInstanceCreateComputeInstance(nvmlGpuInstance_t instance, unsigned int id,
                                                           nvmlComputeInstance_t *compute) {
    WITH(instance, GPU_INSTANCE, create(&call, id, NULL, compute));
}

NVML_API nvmlReturn_t nvmlGpuInstanceCreateComputeInstanceWithPlacement(nvmlGpuInstance_t instance, unsigned int id,
                                                                        const nvmlComputeInstancePlacement_t *place,
                                                                        nvmlComputeInstance_t *compute) {
    WITH(instance, GPU_INSTANCE, place == NULL ? NVML_ERROR_INVALID_ARGUMENT : create(&call, id, place, compute));
}

static nvmlReturn_t remove_compute_instance(Edit *edit) {
    Instance found;
    nvmlReturn_t answer = find_instance(edit->gpu, &edit->call->target, &found);
    if (answer != NVML_SUCCESS) return answer;
    if (is_used(edit->gpu, json_text(found.compute, "uuid"))) return NVML_ERROR_IN_USE;
    json_remove(json_get(found.instance, "computeInstances"), found.compute);
    count_mig_change(edit);
    return NVML_SUCCESS;
}

static nvmlReturn_t destroy(const Call *call) {
    return is_privileged(call->state) ? change_gpu(call, remove_compute_instance, NULL) : NVML_ERROR_NO_PERMISSION;
}

NVML_API nvmlReturn_t nvmlComputeInstanceDestroy(nvmlComputeInstance_t compute) {
    WITH(compute, COMPUTE_INSTANCE, destroy(&call));
}

static nvmlReturn_t list(const Call *call, unsigned int id, nvmlComputeInstance_t *instances, unsigned int *count) {
    Instance found;
    int64_t slices;
    nvmlReturn_t answer = by_profile_id(call, id, &found, &slices);
    if (answer != NVML_SUCCESS) return answer;
    if (instances == NULL || count == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    unsigned int number = 0;
    for (const Json *each = json_first(found.instance, "computeInstances"); each != NULL; each = each->next) {
        if (json_number(each, "slices", 0) != slices) continue;
        Target target = compute_target(COMPUTE_INSTANCE, call->target.gpu, found.instance, each);
        give_handle(&instances[number++], &target);
    }
    *count = number;
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlGpuInstanceGetComputeInstances(nvmlGpuInstance_t instance, unsigned int id,
                                                         nvmlComputeInstance_t *computes, unsigned int *count) {
    WITH(instance, GPU_INSTANCE, list(&call, id, computes, count));
}

static nvmlReturn_t by_id(const Call *call, unsigned int id, nvmlComputeInstance_t *compute) {
    Instance found;
    nvmlReturn_t answer = find_instance(call->gpu, &call->target, &found);
    if (answer != NVML_SUCCESS) return answer;
    for (const Json *each = json_first(found.instance, "computeInstances"); each != NULL; each = each->next)
        if (json_number(each, "id", -1) == id) {
            Target target = compute_target(COMPUTE_INSTANCE, call->target.gpu, found.instance, each);
            return give_handle(compute, &target);
        }
    return NVML_ERROR_NOT_FOUND;
}

NVML_API nvmlReturn_t nvmlGpuInstanceGetComputeInstanceById(nvmlGpuInstance_t instance, unsigned int id,
                                                            nvmlComputeInstance_t *compute) {
    WITH(instance, GPU_INSTANCE, by_id(&call, id, compute));
}

static nvmlReturn_t info_of(const Call *call, nvmlComputeInstanceInfo_t *info) {
    Instance found;
    if (info == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t answer = find_instance(call->gpu, &call->target, &found);
    if (answer != NVML_SUCCESS) return answer;
    Target device = compute_target(MIG_DEVICE, call->target.gpu, found.instance, found.compute);
    Target parent = instance_target(call->target.gpu, found.instance);
    info->device = handle_of(&device);
    info->gpuInstance = handle_of(&parent);
    info->id = (unsigned int)json_number(found.compute, "id", 0);
    info->placement.start = (unsigned int)json_number(found.compute, "start", 0);
    info->placement.size = (unsigned int)json_number(found.compute, "slices", 0);
    info->profileId = (unsigned int)compute_profile(info->placement.size);
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlComputeInstanceGetInfo_v2(nvmlComputeInstance_t compute, nvmlComputeInstanceInfo_t *info) {
    WITH(compute, COMPUTE_INSTANCE, info_of(&call, info));
}
