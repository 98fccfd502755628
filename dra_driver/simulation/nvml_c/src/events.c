#include "events.h"

#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include "gpu.h"
#include "state.h"

enum { XID = 0x8, MIG_CHANGE = 0x100 }; /* nvmlEventTypeXidCriticalError, nvmlEventMigConfigChange */

/* How long a wait does not look at the state: where the kernel says when its folder changes, and where it does not. An event
 * set that is freed meanwhile is noticed then. */
static const double WATCHED_SECONDS = 1.0, POLL_SECONDS = 0.02;

/* What of one GPU an event set has given out, and which types it gives out at all. */
typedef struct Seen Seen;

struct Seen {
    Seen *next;
    int64_t gpu, mig_changes, xids;
    unsigned long long types;
};

/* A set that is freed while somebody waits for it is no longer listed, and goes with the last who waits. */
typedef struct EventSet EventSet;

struct EventSet {
    EventSet *next;
    int64_t number;
    Seen *seen; /* in the order of registration */
    bool listed;
    unsigned waiting;
    int watch; /* of the state's folder, -1 before the first wait */
};

static EventSet *sets;
static int64_t created;
static int spare = -1; /* a watch that no set has now: closing one takes the kernel 20 ms, while others wait for the lock */

static EventSet **find_set(int64_t number) {
    EventSet **at = &sets;
    while (*at != NULL && (*at)->number != number) at = &(*at)->next;
    return at;
}

static void free_unused(EventSet *set) {
    if (set->listed || set->waiting > 0) return;
    while (set->seen != NULL) {
        Seen *seen = set->seen;
        set->seen = seen->next;
        free(seen);
    }
    if (spare < 0) spare = set->watch;
    else if (set->watch >= 0) close(set->watch);
    free(set);
}

static void free_set(EventSet **at) {
    EventSet *set = *at;
    *at = set->next;
    set->listed = false;
    free_unused(set);
}

void events_clear(void) {
    while (sets != NULL) free_set(&sets);
    if (spare >= 0) close(spare);
    spare = -1;
}

static nvmlReturn_t create(nvmlEventSet_t *set) {
    if (set == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    EventSet *made = calloc(1, sizeof *made);
    if (made == NULL) abort();
    made->number = ++created;
    made->listed = true;
    made->watch = -1;
    made->next = sets;
    sets = made;
    Target target = {EVENT_SET, -1, -1, -1, made->number};
    return give_handle(set, &target);
}

NVML_API nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set) { SYSTEM(create(set)); }

static unsigned long long supported(const Call *call) { return has_mig(call->product) ? XID | MIG_CHANGE : XID; }

static nvmlReturn_t give_supported(const Call *call, unsigned long long *types) {
    if (types == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    *types = supported(call);
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types) {
    WITH(device, GPU, give_supported(&call, types));
}

static int64_t mig_changes(const Json *gpu) { return json_number(gpu, "migChanges", 0); }

static nvmlReturn_t register_events(const Call *call, unsigned long long types, nvmlEventSet_t handle) {
    if ((types & ~supported(call)) != 0) return NVML_ERROR_NOT_SUPPORTED;
    Target target;
    if (!handle_find(handle, EVENT_SET, &target)) return NVML_ERROR_INVALID_ARGUMENT;
    EventSet *set = *find_set(target.created);
    if (set == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    Seen **at = &set->seen;
    while (*at != NULL && (*at)->gpu != call->target.gpu) at = &(*at)->next;
    if (*at == NULL) {
        *at = calloc(1, sizeof **at);
        if (*at == NULL) abort();
        (*at)->gpu = call->target.gpu;
        (*at)->mig_changes = mig_changes(call->gpu);
        (*at)->xids = json_count(json_get(call->gpu, "xids"));
    }
    (*at)->types |= types;
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set) {
    WITH(device, GPU, register_events(&call, types, set));
}

static nvmlReturn_t give_event(int64_t gpu, unsigned long long type, unsigned long long data, nvmlEventData_t *event) {
    Target target = gpu_target(gpu);
    *event = (nvmlEventData_t){handle_of(&target), type, data, NVML_NO_INSTANCE, NVML_NO_INSTANCE};
    return NVML_SUCCESS;
}

/* The next event; NVML_ERROR_TIMEOUT when there is none now. */
static nvmlReturn_t take(const Call *call, nvmlEventData_t *event) {
    const EventSet *set = *find_set(call->target.created);
    if (set == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    for (Seen *seen = set->seen; seen != NULL; seen = seen->next) {
        if (gpu_is_lost(call->state, seen->gpu)) return NVML_ERROR_GPU_IS_LOST;
        const Json *gpu = json_at(json_get(call->state, "gpus"), seen->gpu), *xids = json_get(gpu, "xids");
        if ((seen->types & XID) != 0 && json_count(xids) > seen->xids) {
            int64_t xid = json_integer(json_at(xids, seen->xids++), 0);
            return give_event(seen->gpu, XID, (unsigned long long)xid, event);
        }
        if ((seen->types & MIG_CHANGE) != 0 && mig_changes(gpu) > seen->mig_changes) {
            seen->mig_changes++;
            return give_event(seen->gpu, MIG_CHANGE, 0, event);
        }
    }
    return NVML_ERROR_TIMEOUT;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Readable when something in the state's folder was replaced or written; -1 where the kernel cannot tell. */
static int watch_state(void) {
    if (spare >= 0) {
        int found = spare;
        spare = -1;
        return found;
    }
    const char *path = state_path(), *slash = path == NULL ? NULL : strrchr(path, '/');
    int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    Buffer folder = {0};
    buffer_print(&folder, "%.*s", slash == NULL ? 1 : (int)(slash - path) + 1, slash == NULL ? "." : path);
    if (watch >= 0 && inotify_add_watch(watch, folder.data, IN_MOVED_TO | IN_CLOSE_WRITE) < 0) {
        close(watch);
        watch = -1;
    }
    buffer_free(&folder);
    return watch;
}

static void drain(int watch) {
    char changes[4096];
    while (watch >= 0 && read(watch, changes, sizeof changes) > 0) {}
}

/* Others may call meanwhile. What is told is forgotten before the state is read, so no change is slept through. */
static nvmlReturn_t wait_until(Call *call, nvmlEventData_t *event, double deadline, int watch) {
    for (;;) {
        drain(watch);
        nvmlReturn_t answer = call_refresh(call);
        if (answer == NVML_SUCCESS) answer = take(call, event);
        double left = deadline - now(), most = watch < 0 ? POLL_SECONDS : WATCHED_SECONDS;
        if (answer != NVML_ERROR_TIMEOUT || left <= 0) return answer;
        call_wait(watch, left < most ? left : most);
    }
}

static nvmlReturn_t wait_for(Call *call, nvmlEventData_t *event, unsigned int milliseconds) {
    if (event == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    EventSet *set = *find_set(call->target.created);
    if (set == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    if (set->watch < 0 && milliseconds > 0) set->watch = watch_state();
    set->waiting++;
    nvmlReturn_t answer = wait_until(call, event, now() + milliseconds / 1000.0, set->watch);
    set->waiting--;
    free_unused(set);
    return answer;
}

NVML_API nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *event, unsigned int milliseconds) {
    WITH(set, EVENT_SET, wait_for(&call, event, milliseconds));
}

static nvmlReturn_t destroy(const Call *call) {
    EventSet **at = find_set(call->target.created);
    if (*at == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    free_set(at);
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) { WITH(set, EVENT_SET, destroy(&call)); }
