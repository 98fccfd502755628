/* The node's file tree, kept in step with its state at every change (host_mirror.py): the capabilities of MIG instances, and
 * the table of the nvidia-smi that containers get. */
#ifndef GPU_DRA_HOST_MIRROR_H
#define GPU_DRA_HOST_MIRROR_H

#include "json.h"

/* From the state before to the one after, whose file is at `state_file`. False when a tree that is there cannot be written;
 * one that is not there is left alone. */
bool host_mirror_follow(const char *state_file, const Json *before, const Json *after);

#endif
