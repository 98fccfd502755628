/* One GPU of the state: its MIG instances as handles name them, the processes that use it, and how it is changed. */
#ifndef GPU_DRA_GPU_H
#define GPU_DRA_GPU_H

#include "call.h"
#include "product.h"

/* What a handle of a GPU instance, a compute instance or a MIG device stands for; `compute` NULL for the first. */
typedef struct {
    Json *instance, *compute;
    Profile profile;
} Instance;

Json *instance_by_id(const Json *gpu, int64_t id);
nvmlReturn_t find_instance(const Json *gpu, const Target *target, Instance *found); /* without its profile */
nvmlReturn_t find_with_profile(const Call *call, Instance *found);

Target gpu_target(int64_t gpu);
Target instance_target(int64_t gpu, const Json *instance);
Target compute_target(unsigned kind, int64_t gpu, const Json *instance, const Json *compute);

/* MIG devices in the order of NVML's indices. Begin with {0}; false after the last one. */
bool next_mig_device(const Json *gpu, Instance *at);

/* Clients whose process has ended do not count: the kernel has freed the GPU of them (mps/presence.py). */
bool is_client_there(const Json *client);
bool is_used(const Json *gpu, const char *uuid);

/* A change of the target's GPU, as it is when nobody else changes the state. It may refuse with a code. */
typedef struct {
    const Call *call;
    Arena *arena;
    Json *gpu;
    void *context;
} Edit;
typedef nvmlReturn_t (*GpuChange)(Edit *edit);

nvmlReturn_t change_gpu(const Call *call, GpuChange change, void *context);

void set_number(Edit *edit, const char *key, int64_t number);
void set_flag(Edit *edit, const char *key, bool flag);
Json *list_in(Edit *edit, Json *object, const char *key); /* made when it is not there */
void insert_by_id(Json *list, Json *value);
void count_mig_change(Edit *edit);
int64_t count_creation(Edit *edit); /* the number that the new instance gets */


#endif
