/* Limits of a GPU's memory for a cgroup, of driver 615 and later (memory_limits.py, cgroup_limits.py). */
#ifndef GPU_DRA_MEMORY_LIMITS_H
#define GPU_DRA_MEMORY_LIMITS_H

#include "call.h"

/* What the calling process's cgroup may have of the GPU's memory, and what it has; false: nothing limits it. */
bool own_memory_view(const Call *call, uint64_t *most, uint64_t *used);

/* Where cgroups are mounted, and the v1 controller that stands in for cgroup v2, or "". */
const char *cgroup_root(const Json *state);
const char *cgroup_stand_in(const Json *state);

#define UNLIMITED UINT64_MAX /* NVML_DEVICE_MEMORY_LIMIT_MAX */

#endif
