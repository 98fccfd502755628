#include "gpu.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "state.h"

Json *instance_by_id(const Json *gpu, int64_t id) {
    for (Json *each = json_first(gpu, "instances"); each != NULL; each = each->next)
        if (json_number(each, "id", -1) == id) return each;
    return NULL;
}

static Json *compute_by_id(const Json *instance, int64_t id) {
    for (Json *each = json_first(instance, "computeInstances"); each != NULL; each = each->next)
        if (json_number(each, "id", -1) == id) return each;
    return NULL;
}

nvmlReturn_t find_instance(const Json *gpu, const Target *target, Instance *found) {
    found->instance = instance_by_id(gpu, target->gpu_instance);
    found->compute = target->compute_instance < 0 ? NULL : compute_by_id(found->instance, target->compute_instance);
    const Json *meant = target->compute_instance < 0 ? found->instance : found->compute;
    return meant != NULL && json_number(meant, "created", -1) == target->created ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t find_with_profile(const Call *call, Instance *found) {
    nvmlReturn_t answer = find_instance(call->gpu, &call->target, found);
    if (answer != NVML_SUCCESS) return answer;
    int64_t id = json_number(found->instance, "profile", -1);
    return profile_by(call->product, "id", id, &found->profile) ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}

Target gpu_target(int64_t gpu) { return (Target){GPU, gpu, -1, -1, -1}; }

Target instance_target(int64_t gpu, const Json *instance) {
    return (Target){GPU_INSTANCE, gpu, json_number(instance, "id", -1), -1, json_number(instance, "created", -1)};
}

Target compute_target(unsigned kind, int64_t gpu, const Json *instance, const Json *compute) {
    return (Target){kind, gpu, json_number(instance, "id", -1), json_number(compute, "id", -1),
                    json_number(compute, "created", -1)};
}

bool next_mig_device(const Json *gpu, Instance *at) {
    if (at->compute != NULL) at->compute = at->compute->next;
    while (at->compute == NULL) {
        at->instance = at->instance == NULL ? json_first(gpu, "instances") : at->instance->next;
        if (at->instance == NULL) return false;
        at->compute = json_first(at->instance, "computeInstances");
    }
    return true;
}

bool is_client_there(const Json *client) {
    const char *holder = json_text(client, "holder"), *path = state_path();
    if (holder == NULL || path == NULL) return true;
    char name[PATH_MAX];
    int length = snprintf(name, sizeof name, "%s.users/%s", path, holder);
    if (length < 0 || (size_t)length >= sizeof name) return true;
    int descriptor = open(name, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return errno != ENOENT;
    bool held = flock(descriptor, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    close(descriptor);
    return held;
}

bool is_used(const Json *gpu, const char *uuid) {
    for (const Json *each = json_first(gpu, "clients"); each != NULL; each = each->next) {
        const char *used = json_text(each, "uuid");
        if (used != NULL && uuid != NULL && strcmp(used, uuid) == 0) return true;
    }
    return false;
}

typedef struct {
    const Call *call;
    GpuChange change;
    void *context;
} Wanted;

static nvmlReturn_t change_state(Arena *arena, Json *state, void *context) {
    const Wanted *wanted = context;
    Edit edit = {.call = wanted->call, .arena = arena, .context = wanted->context};
    edit.gpu = json_at(json_get(state, "gpus"), wanted->call->target.gpu);
    if (edit.gpu == NULL) return NVML_ERROR_GPU_IS_LOST;
    Json *clients = json_get(edit.gpu, "clients");
    for (Json *each = json_first(edit.gpu, "clients"); each != NULL; each = each->next)
        if (!is_client_there(each)) json_remove(clients, each);
    return wanted->change(&edit);
}

nvmlReturn_t change_gpu(const Call *call, GpuChange change, void *context) {
    Wanted wanted = {call, change, context};
    return state_update(change_state, &wanted);
}

void set_number(Edit *edit, const char *key, int64_t number) {
    json_set(edit->arena, edit->gpu, key, json_new_number(edit->arena, number));
}

void set_flag(Edit *edit, const char *key, bool flag) {
    json_set(edit->arena, edit->gpu, key, json_new(edit->arena, flag ? JSON_TRUE : JSON_FALSE));
}

Json *list_in(Edit *edit, Json *object, const char *key) {
    if (json_get(object, key) == NULL) json_set(edit->arena, object, key, json_new(edit->arena, JSON_ARRAY));
    return json_get(object, key);
}

void insert_by_id(Json *list, Json *value) {
    Json *before = list->first;
    while (before != NULL && json_number(before, "id", 0) < json_number(value, "id", 0)) before = before->next;
    json_insert(list, before, value);
}

void count_mig_change(Edit *edit) { set_number(edit, "migChanges", json_number(edit->gpu, "migChanges", 0) + 1); }

int64_t count_creation(Edit *edit) {
    int64_t created = json_number(edit->gpu, "creations", 0);
    set_number(edit, "creations", created + 1);
    return created;
}
