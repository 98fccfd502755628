/* The part of the containers' nvidia-smi that knows the machine (smi/script_table.py): what of it follows the state.
 *
 * It is written here and not by Python, which may not be there, and which would make every change of MIG as slow as the start
 * of an interpreter. What never changes is in the script already, so only lines of a fixed length are made anew.
 */
#ifndef GPU_DRA_SMI_TABLE_H
#define GPU_DRA_SMI_TABLE_H

#include "json.h"

/* `script` with the table of `state` in it; of another length when it is of another version of ours. */
void smi_table_update(Buffer *updated, const char *script, const Json *state);

/* Of the device nodes that stand for MIG instances (capabilities.py). */
int64_t gpu_instance_minor(int64_t gpu_minor, int64_t gpu_instance);
int64_t compute_instance_minor(int64_t gpu_minor, int64_t gpu_instance, int64_t compute_instance);

#endif
