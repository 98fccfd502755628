/* Handles of this process: numbers that stand for a GPU, a MIG device, an instance or an event set (handles.py).
 *
 * They are never pointers into memory, so one that was never given out is refused and not followed.
 */
#ifndef GPU_DRA_HANDLES_H
#define GPU_DRA_HANDLES_H

#include <stdbool.h>
#include <stdint.h>

enum { GPU = 1, MIG_DEVICE = 2, GPU_INSTANCE = 4, COMPUTE_INSTANCE = 8, EVENT_SET = 16, ANY_DEVICE = GPU | MIG_DEVICE };

/* Numbers are -1 where they do not apply. `created` tells an instance, or an event set, from a later one of its ids. */
typedef struct {
    unsigned kind;
    int64_t gpu, gpu_instance, compute_instance, created;
} Target;

void *handle_of(const Target *target); /* the same one for the same target */
bool handle_find(const void *handle, unsigned kinds, Target *target);

#endif
