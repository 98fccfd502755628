#include "call.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "events.h"
#include "state.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned initialised;
static char own_version[64]; /* of the driver that this library came with; "" before it was initialised */

static const Json *faults_of(const Json *state) { return json_get(state, "faults"); }

static bool names(const Json *list, const char *name) {
    for (const Json *each = list; each != NULL; each = each->next)
        if (each->kind == JSON_TEXT && strcmp(each->text, name) == 0) return true;
    return false;
}

static bool is_function(const Json *fault, const char *name) {
    const char *function = json_text(fault, "function");
    return function != NULL && strcmp(function, name) == 0;
}

bool gpu_is_lost(const Json *state, int64_t gpu) {
    for (const Json *each = json_first(faults_of(state), "lostGpus"); each != NULL; each = each->next)
        if (json_integer(each, -1) == gpu) return true;
    return false;
}

/* How much longer a call takes; `gpu` -1 for a call that is about no GPU. */
static double latency(const Json *state, const char *name, int64_t gpu) {
    const Json *faults = faults_of(state);
    for (const Json *each = json_first(faults, "gpuLatency"); each != NULL; each = each->next)
        if (is_function(each, name) && json_number(each, "gpu", -1) == gpu && gpu >= 0)
            return json_fraction(json_get(each, "seconds"));
    const Json *by_name = json_get(faults, "latency"), *own = json_get(by_name, name);
    return json_fraction(own != NULL ? own : json_get(by_name, "*"));
}

static const char *driver_version(const Json *state, const char *part) {
    const Json *driver = json_get(state, "driver");
    return driver != NULL ? json_text(driver, part)
                          : json_text(json_get(json_get(state, "machine"), "hardware"), "driverVersion");
}

const char *module_version(const Json *state) { return driver_version(state, "module"); }

static const char *library_version(const Json *state) {
    return own_version[0] != '\0' ? own_version : driver_version(state, "library");
}

static int64_t branch(const char *version) { return version == NULL ? 0 : strtoll(version, NULL, 10); }

int64_t cuda_driver_version(const Json *state) {
    static const int64_t of_branch[][2] = {{580, 13000}, {590, 13010}, {615, 13040}}; /* driver_branches.py */
    const char *module = json_get(state, "driver") == NULL ? NULL : module_version(state);
    for (size_t each = 0; module != NULL && each < sizeof of_branch / sizeof *of_branch; each++)
        if (of_branch[each][0] == branch(module)) return of_branch[each][1];
    return json_number(json_get(json_get(state, "machine"), "hardware"), "cudaDriverVersion", 0);
}

bool is_privileged(const Json *state) {
    return json_get(state, "privileged") == NULL || json_is_true(state, "privileged");
}

/* What the kernel module answers to this library. */
static nvmlReturn_t of_module(const Json *state) {
    const char *module = module_version(state);
    if (own_version[0] == '\0') return NVML_ERROR_LIBRARY_NOT_FOUND;
    if (module == NULL) return NVML_ERROR_DRIVER_NOT_LOADED;
    return strcmp(module, own_version) == 0 ? NVML_SUCCESS : NVML_ERROR_LIB_RM_VERSION_MISMATCH;
}

static void sleep_for(double seconds) {
    static const double longest = 1e6;
    if (seconds > longest) seconds = longest;
    struct timespec left = {.tv_sec = (time_t)seconds};
    left.tv_nsec = (long)((seconds - (double)left.tv_sec) * 1e9);
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {}
}

/* Without the lock; the state afterwards. */
static const Json *sleep_unlocked(double seconds) {
    pthread_mutex_unlock(&lock);
    sleep_for(seconds);
    pthread_mutex_lock(&lock);
    return state_read();
}

static Json *matching(const Json *state, const char *name, int64_t gpu) {
    for (Json *each = json_first(faults_of(state), "calls"); each != NULL; each = each->next)
        if (is_function(each, name) && (json_get(each, "gpu") == NULL || json_number(each, "gpu", -1) == gpu)) return each;
    return NULL;
}

typedef struct {
    const char *name;
    int64_t gpu;
    int64_t code; /* NVML_SUCCESS: another process has used the fault up */
} Taken;

static nvmlReturn_t count_down(Arena *arena, Json *state, void *context) {
    Taken *taken = context;
    Json *fault = matching(state, taken->name, taken->gpu);
    if (fault == NULL) return NVML_SUCCESS;
    taken->code = json_number(fault, "code", 0);
    if (json_get(fault, "times") == NULL) return NVML_SUCCESS;
    int64_t times = json_number(fault, "times", 1);
    if (times <= 1) json_remove(json_get(json_get(state, "faults"), "calls"), fault);
    else json_set(arena, fault, "times", json_new_number(arena, times - 1));
    return NVML_SUCCESS;
}

/* The code that the function must answer now; NVML_SUCCESS for none. Counts down faults that last some times. */
static nvmlReturn_t take_error(const Json *state, const char *name, int64_t gpu) {
    const Json *fault = matching(state, name, gpu);
    if (fault == NULL) return NVML_SUCCESS;
    if (json_get(fault, "times") == NULL) return (nvmlReturn_t)json_number(fault, "code", 0);
    Taken taken = {.name = name, .gpu = gpu, .code = NVML_SUCCESS};
    nvmlReturn_t answer = state_update(count_down, &taken);
    return answer == NVML_SUCCESS ? (nvmlReturn_t)taken.code : answer;
}

static nvmlReturn_t look_at(Call *call, const Json *state) {
    call->state = state;
    if (state == NULL) return NVML_ERROR_DRIVER_NOT_LOADED;
    call->hardware = json_get(json_get(state, "machine"), "hardware");
    call->gpu = call->described = call->product = NULL;
    if (call->target.gpu < 0) return NVML_SUCCESS;
    call->gpu = json_at(json_get(state, "gpus"), call->target.gpu);
    call->described = json_at(json_get(call->hardware, "gpus"), call->target.gpu);
    call->product = json_at(json_get(call->hardware, "products"), json_number(call->described, "product", 0));
    return call->gpu == NULL || call->product == NULL ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
}

static nvmlReturn_t checked(Call *call, const char *name, const void *handle, unsigned kinds, int64_t since) {
    const Json *state = state_read();
    if (state == NULL) return initialised == 0 ? NVML_ERROR_UNINITIALIZED : NVML_ERROR_DRIVER_NOT_LOADED;
    bool missing = names(json_first(faults_of(state), "missingFunctions"), name);
    if (missing || branch(library_version(state)) < since) return NVML_ERROR_FUNCTION_NOT_FOUND;
    if (initialised == 0) return NVML_ERROR_UNINITIALIZED;
    *call = (Call){.target = {.gpu = -1}};
    bool found = kinds == 0 || handle_find(handle, kinds, &call->target);
    double seconds = latency(state, name, call->target.gpu);
    if (seconds > 0) state = sleep_unlocked(seconds);
    if (state == NULL) return NVML_ERROR_DRIVER_NOT_LOADED;
    nvmlReturn_t answer = of_module(state);
    if (answer != NVML_SUCCESS) return answer;
    if (!found) return NVML_ERROR_INVALID_ARGUMENT;
    answer = take_error(state, name, call->target.gpu);
    if (answer != NVML_SUCCESS) return answer;
    if (gpu_is_lost(state, call->target.gpu)) return NVML_ERROR_GPU_IS_LOST;
    return look_at(call, state);
}

nvmlReturn_t call_begin(Call *call, const char *name, const void *handle, unsigned kinds, int64_t since) {
    pthread_mutex_lock(&lock);
    nvmlReturn_t answer = checked(call, name, handle, kinds, since);
    if (answer != NVML_SUCCESS) call_end();
    return answer;
}

void call_end(void) {
    state_forget();
    pthread_mutex_unlock(&lock);
}

nvmlReturn_t call_refresh(Call *call) { return look_at(call, state_read()); }

void call_wait(int descriptor, double seconds) {
    struct pollfd readable = {.fd = descriptor, .events = POLLIN};
    pthread_mutex_unlock(&lock);
    if (descriptor < 0) sleep_for(seconds);
    else poll(&readable, 1, (int)(seconds * 1000) + 1); /* a signal only makes it look earlier */
    pthread_mutex_lock(&lock);
}

static nvmlReturn_t initialise(const char *name, unsigned int flags) {
    const Json *state = state_read();
    double seconds = latency(state, name, -1);
    if (seconds > 0) state = sleep_unlocked(seconds);
    if (state == NULL) return NVML_ERROR_DRIVER_NOT_LOADED; /* no state: a machine without a driver */
    if (json_is_true(faults_of(state), "libraryMissing")) return NVML_ERROR_LIBRARY_NOT_FOUND;
    nvmlReturn_t answer = take_error(state, name, -1);
    if (answer != NVML_SUCCESS) return answer;
    const char *version = library_version(state);
    if (own_version[0] == '\0' && version != NULL) snprintf(own_version, sizeof own_version, "%s", version);
    answer = of_module(state);
    if (answer != NVML_SUCCESS) return answer;
    if (json_first(state, "gpus") == NULL && (flags & NVML_INIT_FLAG_NO_GPUS) == 0) return NVML_ERROR_NOT_FOUND;
    initialised++;
    return NVML_SUCCESS;
}

static nvmlReturn_t initialise_locked(const char *name, unsigned int flags) {
    pthread_mutex_lock(&lock);
    nvmlReturn_t answer = initialise(name, flags);
    call_end();
    return answer;
}

NVML_API nvmlReturn_t nvmlInitWithFlags(unsigned int flags) { return initialise_locked(__func__, flags); }

NVML_API nvmlReturn_t nvmlInit_v2(void) { return initialise_locked(__func__, 0); }

NVML_API nvmlReturn_t nvmlShutdown(void) {
    pthread_mutex_lock(&lock);
    nvmlReturn_t answer = initialised == 0 ? NVML_ERROR_UNINITIALIZED : NVML_SUCCESS;
    if (answer == NVML_SUCCESS && --initialised == 0) events_clear();
    pthread_mutex_unlock(&lock);
    return answer;
}

nvmlReturn_t give_number(unsigned int *target, int64_t number) {
    if (target == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    *target = (unsigned int)number;
    return NVML_SUCCESS;
}

nvmlReturn_t give_text(char *buffer, unsigned int room, const char *text) {
    if (buffer == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    size_t length = strlen(text);
    if (room <= length) return NVML_ERROR_INSUFFICIENT_SIZE;
    memcpy(buffer, text, length + 1);
    return NVML_SUCCESS;
}

nvmlReturn_t give_handle(void *target, const Target *wanted) {
    if (target == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    void *handle = handle_of(wanted);
    memcpy(target, &handle, sizeof handle); /* handles are pointers to different types */
    return NVML_SUCCESS;
}
