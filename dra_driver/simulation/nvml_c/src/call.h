/* What every function does around its own work, in NVML's order (SimulatedLibrary._guarded): is it there? initialised?
 * latency, module, handle, injected error, lost GPU. One lock is held meanwhile, but not while a latency is played.
 */
#ifndef GPU_DRA_CALL_H
#define GPU_DRA_CALL_H

#include "handles.h"
#include "json.h"
#include "nvml.h"

typedef struct {
    const Json *state, *hardware;
    Target target;                         /* kind 0 for a function of the whole system */
    const Json *gpu, *described, *product; /* of the target's GPU; NULL without one */
} Call;

enum { ANY_DRIVER = 0 };

/* After NVML_SUCCESS call_end must follow. `since`: the branch of the first driver that has the function. */
nvmlReturn_t call_begin(Call *call, const char *name, const void *handle, unsigned kinds, int64_t since);
void call_end(void);

#define SERVE(handle, kinds, since, body)                                          \
    Call call;                                                                     \
    nvmlReturn_t answer = call_begin(&call, __func__, (handle), (kinds), (since)); \
    if (answer == NVML_SUCCESS) {                                                  \
        answer = (body);                                                           \
        call_end();                                                                \
    }                                                                              \
    return answer

/* Functions of the whole system, and those that take a handle first. */
#define SYSTEM(body) SERVE(NULL, 0, ANY_DRIVER, body)
#define WITH(handle, kinds, body) SERVE(handle, kinds, ANY_DRIVER, body)

/* Waits without the lock, at most that long, for something to be read from `descriptor` (-1: for the time to pass). The state
 * of a call may be gone then: call_refresh gives it the one that is now. */
void call_wait(int descriptor, double seconds);
nvmlReturn_t call_refresh(Call *call);

bool gpu_is_lost(const Json *state, int64_t gpu);
const char *module_version(const Json *state); /* NULL while none is loaded */
int64_t cuda_driver_version(const Json *state);
bool is_privileged(const Json *state);

/* The pieces that functions are put together from: each checks its pointer. */
nvmlReturn_t give_number(unsigned int *target, int64_t number);
nvmlReturn_t give_text(char *buffer, unsigned int room, const char *text);
nvmlReturn_t give_handle(void *target, const Target *wanted);

#endif
