#include "memory_limits.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gpu.h"

enum { SINCE = 615 };

typedef struct Limit Limit;

struct Limit {
    Limit *next;
    const char *cgroup;
    uint64_t inode, soft, hard;
};

const char *cgroup_root(const Json *state) {
    const char *root = json_text(json_get(state, "cgroups"), "root");
    return root == NULL ? "/sys/fs/cgroup" : root;
}

const char *cgroup_stand_in(const Json *state) {
    const char *controller = json_text(json_get(state, "cgroups"), "standsIn");
    return controller == NULL ? "" : controller;
}

static bool is_folder(const char *path) {
    struct stat found;
    return stat(path, &found) == 0 && S_ISDIR(found.st_mode);
}

static bool has_hierarchy(const Json *state) {
    if (*cgroup_stand_in(state) != '\0') return is_folder(cgroup_root(state));
    Buffer path = {0};
    buffer_print(&path, "%s/cgroup.controllers", cgroup_root(state)); /* at the root of cgroup v2 alone */
    bool there = access(path.data, F_OK) == 0;
    buffer_free(&path);
    return there;
}

/* Whether `path` is `other` or below it. */
static bool is_in(const char *path, const char *other) {
    size_t length = strlen(other);
    return strncmp(path, other, length) == 0 && (path[length] == '\0' || path[length] == '/');
}

/* A process in a container may see a part of the hierarchy only; the machine's first process has it all. */
static bool inode_of(const char *cgroup, uint64_t *inode) {
    struct stat found;
    Buffer path = {0};
    buffer_print(&path, "/proc/1/root%s", cgroup);
    bool there = stat(cgroup, &found) == 0 || stat(path.data, &found) == 0;
    buffer_free(&path);
    if (there) *inode = found.st_ino;
    return there;
}

/* Those whose cgroup is still there: the others went with it. */
static Limit *living(Arena *arena, const Json *gpu) {
    Limit *first = NULL, **end = &first;
    for (const Json *each = json_first(gpu, "memoryLimits"); each != NULL; each = each->next) {
        const char *cgroup = json_text(each, "cgroup");
        uint64_t inode;
        if (cgroup == NULL || !inode_of(cgroup, &inode) || inode != json_unsigned(each, "inode")) continue;
        *end = arena_take(arena, sizeof **end);
        **end = (Limit){NULL, cgroup, inode, json_unsigned(each, "soft"), json_unsigned(each, "hard")};
        end = &(*end)->next;
    }
    return first;
}

static Limit *limit_of(Limit *limits, const char *cgroup) {
    while (limits != NULL && strcmp(limits->cgroup, cgroup) != 0) limits = limits->next;
    return limits;
}

/* What the processes in `cgroup` and below it have of the whole GPU. */
static uint64_t used_in(const Json *gpu, const char *cgroup) {
    uint64_t used = 0;
    const char *uuid = json_text(gpu, "uuid");
    for (const Json *each = json_first(gpu, "clients"); each != NULL; each = each->next) {
        const char *own = json_text(each, "cgroup"), *device = json_text(each, "uuid");
        bool counts = own != NULL && device != NULL && uuid != NULL && strcmp(device, uuid) == 0 && is_in(own, cgroup);
        if (counts && is_client_there(each)) used += json_unsigned(each, "allocated");
    }
    return used;
}

/* `name` without empty and "." parts, when it is a folder of the hierarchy. */
static nvmlReturn_t find_cgroup(const Call *call, const char *name, Buffer *path) {
    if (!has_hierarchy(call->state)) return NVML_ERROR_NOT_SUPPORTED;
    if (name == NULL || *name == '\0') return NVML_ERROR_INVALID_ARGUMENT;
    bool inside = *name == '/';
    for (const char *at = name; *at != '\0';) {
        size_t length = strcspn(at, "/");
        bool same = length == 0 || (length == 1 && *at == '.');
        if (length == 2 && strncmp(at, "..", 2) == 0) inside = false;
        if (!same) buffer_print(path, "/%.*s", (int)length, at);
        at += length + (at[length] == '/');
    }
    inside = inside && path->data != NULL && is_in(path->data, cgroup_root(call->state));
    return inside && is_folder(path->data) ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}

/* "Not supported" for MIG, and for a GPU that shares the host's memory. */
static nvmlReturn_t accounted_memory(const Call *call, uint64_t *memory) {
    *memory = json_unsigned(call->product, "memoryBytes");
    bool mig = call->target.kind == MIG_DEVICE || json_is_true(call->gpu, "migEnabled");
    return mig || *memory == 0 ? NVML_ERROR_NOT_SUPPORTED : NVML_SUCCESS;
}

typedef struct {
    const char *cgroup;
    uint64_t soft, hard, memory;
} Wanted;

/* One cgroup's limit: its own, or what is added to one above. False: it is gone meanwhile. */
static bool put_limit(Arena *arena, Limit **limits, const char *cgroup, uint64_t soft, uint64_t hard) {
    uint64_t inode;
    if (!inode_of(cgroup, &inode)) return false;
    Limit **at = limits;
    while (*at != NULL && strcmp((*at)->cgroup, cgroup) != 0) at = &(*at)->next;
    if (*at == NULL) {
        *at = arena_take(arena, sizeof **at);
        (*at)->next = NULL;
        (*at)->cgroup = arena_text(arena, cgroup, strlen(cgroup));
    }
    (*at)->inode = inode;
    (*at)->soft = soft;
    (*at)->hard = hard;
    return true;
}

static bool change_limits(Arena *arena, Limit **limits, const Wanted *wanted, const char *root) {
    Limit *own = limit_of(*limits, wanted->cgroup);
    uint64_t before = own == NULL ? 0 : own->soft;
    if (!put_limit(arena, limits, wanted->cgroup, wanted->soft, wanted->hard)) return false;
    char *above = arena_text(arena, wanted->cgroup, strlen(wanted->cgroup));
    for (;;) {
        *strrchr(above, '/') = '\0';
        if (strlen(above) <= strlen(root)) return true;
        own = limit_of(*limits, above);
        uint64_t soft = own == NULL ? 0 : own->soft;
        soft = wanted->soft >= before ? soft + (wanted->soft - before)
               : soft > before - wanted->soft ? soft - (before - wanted->soft)
                                              : 0;
        if (!put_limit(arena, limits, above, soft, own == NULL ? UNLIMITED : own->hard)) return false;
    }
}

/* What is guaranteed of a GPU altogether, with what removed cgroups have left: the soft limits below the root. */
static uint64_t reserved_of(const Limit *limits, const char *root) {
    uint64_t sum = 0;
    for (; limits != NULL; limits = limits->next)
        if ((size_t)(strrchr(limits->cgroup, '/') - limits->cgroup) == strlen(root) && is_in(limits->cgroup, root))
            sum += limits->soft;
    return sum;
}

static Json *as_json(Arena *arena, const Limit *limits) {
    Json *list = json_new(arena, JSON_ARRAY);
    for (; limits != NULL; limits = limits->next) {
        if (limits->soft == 0 && limits->hard == UNLIMITED) continue;
        Json *each = json_new(arena, JSON_OBJECT);
        json_set(arena, each, "cgroup", json_new_text(arena, limits->cgroup));
        json_set(arena, each, "inode", json_new_unsigned(arena, limits->inode));
        json_set(arena, each, "soft", json_new_unsigned(arena, limits->soft));
        json_set(arena, each, "hard", json_new_unsigned(arena, limits->hard));
        json_append(list, each);
    }
    return list;
}

static nvmlReturn_t to_limits(Edit *edit) {
    const Wanted *wanted = edit->context;
    const char *root = cgroup_root(edit->call->state);
    if (wanted->hard < used_in(edit->gpu, wanted->cgroup)) return NVML_ERROR_IN_USE;
    Limit *limits = living(edit->arena, edit->gpu);
    if (!change_limits(edit->arena, &limits, wanted, root)) return NVML_ERROR_NOT_FOUND;
    if (reserved_of(limits, root) > wanted->memory) return NVML_ERROR_INSUFFICIENT_RESOURCES;
    json_set(edit->arena, edit->gpu, "memoryLimits", as_json(edit->arena, limits));
    return NVML_SUCCESS;
}

static nvmlReturn_t set_checked(const Call *call, const nvmlSetMemoryLimits_v1_t *limits, const char *cgroup) {
    Wanted wanted = {.cgroup = cgroup, .soft = limits->softLimit, .hard = limits->hardLimit};
    nvmlReturn_t answer = accounted_memory(call, &wanted.memory);
    if (answer != NVML_SUCCESS) return answer;
    if (strcmp(cgroup, cgroup_root(call->state)) == 0) return NVML_ERROR_NOT_SUPPORTED;
    if (wanted.soft > wanted.hard || (wanted.hard != UNLIMITED && wanted.hard > wanted.memory))
        return NVML_ERROR_INVALID_ARGUMENT;
    return change_gpu(call, to_limits, &wanted);
}

static nvmlReturn_t set_limits(const Call *call, const nvmlSetMemoryLimits_v1_t *limits) {
    Buffer cgroup = {0};
    if (limits == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    if (!is_privileged(call->state)) return NVML_ERROR_NO_PERMISSION;
    nvmlReturn_t answer = find_cgroup(call, limits->nameSpace, &cgroup);
    if (answer == NVML_SUCCESS) answer = set_checked(call, limits, cgroup.data);
    buffer_free(&cgroup);
    return answer;
}

NVML_API nvmlReturn_t nvmlDeviceSetMemoryLimits_v1(nvmlDevice_t device, nvmlSetMemoryLimits_v1_t *limits) {
    SERVE(device, ANY_DEVICE, SINCE, set_limits(&call, limits));
}

static void give_limits(const Call *call, const char *cgroup, nvmlGetMemoryLimits_v1_t *limits) {
    Arena arena = {0};
    const Limit *own = limit_of(living(&arena, call->gpu), cgroup);
    limits->softLimit = own == NULL ? 0 : own->soft;
    limits->hardLimit = own == NULL ? UNLIMITED : own->hard;
    limits->currentUsed = used_in(call->gpu, cgroup);
    arena_free(&arena);
}

static nvmlReturn_t get_limits(const Call *call, nvmlGetMemoryLimits_v1_t *limits) {
    Buffer cgroup = {0};
    uint64_t memory;
    if (limits == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t answer = find_cgroup(call, limits->nameSpace, &cgroup);
    if (answer == NVML_SUCCESS) answer = accounted_memory(call, &memory);
    if (answer == NVML_SUCCESS) give_limits(call, cgroup.data, limits);
    buffer_free(&cgroup);
    return answer;
}

NVML_API nvmlReturn_t nvmlDeviceGetMemoryLimits_v1(nvmlDevice_t device, nvmlGetMemoryLimits_v1_t *limits) {
    SERVE(device, ANY_DEVICE, SINCE, get_limits(&call, limits));
}

/* The path after "0::", or after "N:controllers:" with the one that stands in, in a line of /proc/self/cgroup. */
static const char *path_in_line(char *line, const char *stand_in) {
    char *controllers = strchr(line, ':');
    char *path = controllers == NULL ? NULL : strchr(controllers + 1, ':');
    if (path == NULL) return NULL;
    *controllers++ = '\0';
    *path++ = '\0';
    if (*stand_in == '\0') return strcmp(line, "0") == 0 && *controllers == '\0' ? path : NULL;
    for (char *rest = NULL, *each = strtok_r(controllers, ",", &rest); each != NULL; each = strtok_r(NULL, ",", &rest))
        if (strcmp(each, stand_in) == 0) return path;
    return NULL;
}

static bool own_cgroup(const Json *state, Buffer *cgroup) {
    Buffer text = {0};
    int descriptor = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
    bool right = descriptor >= 0 && buffer_read(&text, descriptor);
    if (descriptor >= 0) close(descriptor);
    const char *path = NULL;
    char *rest = NULL, *line = right ? strtok_r(text.data, "\n", &rest) : NULL;
    for (; line != NULL && path == NULL; line = strtok_r(NULL, "\n", &rest))
        path = path_in_line(line, cgroup_stand_in(state));
    right = path != NULL && strstr(path, "/..") == NULL;
    if (right) buffer_print(cgroup, "%s/%s", cgroup_root(state), path + strspn(path, "/"));
    while (right && cgroup->data[cgroup->length - 1] == '/') cgroup->data[--cgroup->length] = '\0';
    buffer_free(&text);
    return right && strcmp(cgroup->data, cgroup_root(state)) != 0;
}

bool own_memory_view(const Call *call, uint64_t *most, uint64_t *used) {
    if (json_first(call->gpu, "memoryLimits") == NULL || call->target.kind != GPU) return false;
    Buffer cgroup = {0};
    Arena arena = {0};
    const Limit *own = own_cgroup(call->state, &cgroup) ? limit_of(living(&arena, call->gpu), cgroup.data) : NULL;
    bool limited = own != NULL && own->hard != UNLIMITED;
    if (limited) {
        *most = own->hard;
        *used = used_in(call->gpu, cgroup.data);
    }
    arena_free(&arena);
    buffer_free(&cgroup);
    return limited;
}
