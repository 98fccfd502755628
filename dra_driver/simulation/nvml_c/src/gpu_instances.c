/* GPU instances: made at a place, or at one of NVML's choice; listed; destroyed when empty (mig/gpu_instances.py). */
#include "gpu.h"
#include "mig.h"

typedef struct {
    Profile profile;
    const nvmlGpuInstancePlacement_t *place; /* NULL: of NVML's choice */
    Target made;
} Creation;

static nvmlReturn_t make_instance(Edit *edit) {
    Creation *wanted = edit->context;
    const Json *product = edit->call->product;
    if (!json_is_true(edit->gpu, "migEnabled")) return NVML_ERROR_NOT_SUPPORTED;
    Occupied occupied = occupied_by(product, edit->gpu);
    int64_t start = wanted->place != NULL ? wanted->place->start : chosen_start(product, &occupied, &wanted->profile);
    if (start < 0 || !fits(product, &occupied, &wanted->profile, start)) return NVML_ERROR_INSUFFICIENT_RESOURCES;
    Json *instance = json_new(edit->arena, JSON_OBJECT);
    int64_t id = free_instance_id(product, &wanted->profile, edit->gpu);
    json_set(edit->arena, instance, "id", json_new_number(edit->arena, id));
    json_set(edit->arena, instance, "profile", json_new_number(edit->arena, wanted->profile.id));
    json_set(edit->arena, instance, "start", json_new_number(edit->arena, start));
    json_set(edit->arena, instance, "created", json_new_number(edit->arena, count_creation(edit)));
    json_set(edit->arena, instance, "computeInstances", json_new(edit->arena, JSON_ARRAY));
    insert_by_id(list_in(edit, edit->gpu, "instances"), instance);
    count_mig_change(edit);
    wanted->made = instance_target(edit->call->target.gpu, instance);
    return NVML_SUCCESS;
}

static nvmlReturn_t create(const Call *call, unsigned int id, const nvmlGpuInstancePlacement_t *place, void *instance) {
    Creation wanted = {.place = place};
    if (!is_mig_on(call)) return NVML_ERROR_NOT_SUPPORTED;
    nvmlReturn_t answer = find_profile(call, id, &wanted.profile);
    if (answer != NVML_SUCCESS) return answer;
    if (place != NULL && (!starts_at(&wanted.profile, place->start) || place->size != wanted.profile.size))
        return NVML_ERROR_INVALID_ARGUMENT;
    if (instance == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    if (!is_privileged(call->state)) return NVML_ERROR_NO_PERMISSION;
    answer = change_gpu(call, make_instance, &wanted);
    return answer == NVML_SUCCESS ? give_handle(instance, &wanted.made) : answer;
}

NVML_API nvmlReturn_t nvmlDeviceCreateGpuInstance(nvmlDevice_t device, unsigned int id, nvmlGpuInstance_t *instance) {
    WITH(device, GPU, create(&call, id, NULL, instance));
}

NVML_API nvmlReturn_t nvmlDeviceCreateGpuInstanceWithPlacement(nvmlDevice_t device, unsigned int id,
                                                               const nvmlGpuInstancePlacement_t *place,
                                                               nvmlGpuInstance_t *instance) {
    WITH(device, GPU, place == NULL ? NVML_ERROR_INVALID_ARGUMENT : create(&call, id, place, instance));
}

static nvmlReturn_t remove_instance(Edit *edit) {
    Instance found;
    nvmlReturn_t answer = find_instance(edit->gpu, &edit->call->target, &found);
    if (answer != NVML_SUCCESS) return answer;
    if (json_first(found.instance, "computeInstances") != NULL) return NVML_ERROR_IN_USE;
    json_remove(json_get(edit->gpu, "instances"), found.instance);
    count_mig_change(edit);
    return NVML_SUCCESS;
}

static nvmlReturn_t destroy(const Call *call) {
    return is_privileged(call->state) ? change_gpu(call, remove_instance, NULL) : NVML_ERROR_NO_PERMISSION;
}

NVML_API nvmlReturn_t nvmlGpuInstanceDestroy(nvmlGpuInstance_t instance) {
    WITH(instance, GPU_INSTANCE, destroy(&call));
}

/* NVML has no other word for the array's length than the profile's count. */
static nvmlReturn_t list(const Call *call, unsigned int id, nvmlGpuInstance_t *instances, unsigned int *count) {
    Profile profile;
    if (!is_mig_on(call)) return NVML_ERROR_NOT_SUPPORTED;
    nvmlReturn_t answer = find_profile(call, id, &profile);
    if (answer != NVML_SUCCESS) return answer;
    if (instances == NULL || count == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    unsigned int number = 0;
    for (const Json *each = json_first(call->gpu, "instances"); each != NULL; each = each->next) {
        if (json_number(each, "profile", -1) != profile.id) continue;
        Target target = instance_target(call->target.gpu, each);
        give_handle(&instances[number++], &target);
    }
    *count = number;
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetGpuInstances(nvmlDevice_t device, unsigned int id, nvmlGpuInstance_t *instances,
                                                unsigned int *count) {
    WITH(device, GPU, list(&call, id, instances, count));
}

static nvmlReturn_t by_id(const Call *call, unsigned int id, nvmlGpuInstance_t *instance) {
    if (!is_mig_on(call)) return NVML_ERROR_NOT_SUPPORTED;
    const Json *found = instance_by_id(call->gpu, id);
    if (found == NULL) return NVML_ERROR_NOT_FOUND;
    Target target = instance_target(call->target.gpu, found);
    return give_handle(instance, &target);
}

NVML_API nvmlReturn_t nvmlDeviceGetGpuInstanceById(nvmlDevice_t device, unsigned int id, nvmlGpuInstance_t *instance) {
    WITH(device, GPU, by_id(&call, id, instance));
}

static nvmlReturn_t info_of(const Call *call, nvmlGpuInstanceInfo_t *info) {
    Instance found;
    if (info == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t answer = find_with_profile(call, &found);
    if (answer != NVML_SUCCESS) return answer;
    Target gpu = gpu_target(call->target.gpu);
    info->device = handle_of(&gpu);
    info->id = (unsigned int)json_number(found.instance, "id", 0);
    info->profileId = (unsigned int)found.profile.id;
    info->placement.start = (unsigned int)json_number(found.instance, "start", 0);
    info->placement.size = (unsigned int)found.profile.size;
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlGpuInstanceGetInfo(nvmlGpuInstance_t instance, nvmlGpuInstanceInfo_t *info) {
    WITH(instance, GPU_INSTANCE, info_of(&call, info));
}

static nvmlReturn_t capacity(const Call *call, unsigned int id, unsigned int *count) {
    Profile profile;
    if (!is_mig_on(call)) return NVML_ERROR_NOT_SUPPORTED;
    nvmlReturn_t answer = find_profile(call, id, &profile);
    if (answer != NVML_SUCCESS) return answer;
    Occupied occupied = occupied_by(call->product, call->gpu);
    return give_number(count, remaining(call->product, &occupied, &profile));
}

NVML_API nvmlReturn_t nvmlDeviceGetGpuInstanceRemainingCapacity(nvmlDevice_t device, unsigned int id,
                                                                unsigned int *count) {
    WITH(device, GPU, capacity(&call, id, count));
}
