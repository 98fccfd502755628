/* The state file of the simulated hardware, which Python processes and this library share (state_store.py, state_file.py).
 *
 * Where it is: GPU_DRA_SIMULATED_STATE says so, or else the first line of the file ".simulated-state" beside this library,
 * relative to that folder. All functions are called under the library's lock.
 */
#ifndef GPU_DRA_STATE_H
#define GPU_DRA_STATE_H

#include "json.h"
#include "nvml.h"

/* The state as it is now; NULL when there is none that can be read. What an earlier call gave stays until state_forget. */
const Json *state_read(void);
void state_forget(void);

/* Changes `state`, its own copy, or refuses with a code; what it makes comes from `arena`. */
typedef nvmlReturn_t (*StateChange)(Arena *arena, Json *state, void *context);

/* Replaces the file by its changed content while nobody else writes it, and has the node's file tree follow. Writes nothing
 * when nothing changes. NVML_ERROR_OPERATING_SYSTEM when the file or the tree cannot be written. */
nvmlReturn_t state_update(StateChange change, void *context);

/* The path of the file, for what lies beside it; NULL when nothing says where it is. */
const char *state_path(void);

#endif
