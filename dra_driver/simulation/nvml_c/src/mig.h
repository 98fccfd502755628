/* What the functions of MIG share. Codes: MIG off, or a product without it, "not supported"; a profile or a place that is
 * not listed, "invalid argument"; what others hold, "insufficient resources"; what still has something in it, "in use". */
#ifndef GPU_DRA_MIG_H
#define GPU_DRA_MIG_H

#include "call.h"
#include "product.h"

bool is_mig_on(const Call *call);
nvmlReturn_t find_profile(const Call *call, unsigned int id, Profile *profile);

/* The UUID of a new MIG device; `created` counts creations, since one that is made again gets another UUID. */
enum { UUID_LENGTH = 41 };
void mig_uuid(char uuid[UUID_LENGTH], const char *gpu_uuid, int64_t gpu_instance, int64_t compute_instance,
              int64_t created);

#endif
