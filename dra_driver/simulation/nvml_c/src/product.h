/* A product's MIG profiles, and which instances fit on a GPU: the arithmetic of placing.py, held together with it by a test.
 */
#ifndef GPU_DRA_PRODUCT_H
#define GPU_DRA_PRODUCT_H

#include "json.h"

enum { ENGINES = 4, MOST_INSTANCES = 64 };

typedef struct {
    const char *name;
    int64_t id, enum_index, slices, instances, memory_mib, multiprocessors, copy_engines;
    int64_t engines[ENGINES]; /* decoders, encoders, JPEG and OFA engines */
    bool p2p;
    int64_t size; /* in memory slices */
    const Json *starts;
} Profile;

bool has_mig(const Json *product);
bool profile_by(const Json *product, const char *key, int64_t wanted, Profile *profile); /* key: "id" or "enumIndex" */
bool starts_at(const Profile *profile, int64_t start);
Profile whole_gpu(const Json *product);
int64_t most_mig_devices(const Json *product);

/* The GPU instances of one GPU. */
typedef struct {
    int64_t count;
    Profile profiles[MOST_INSTANCES];
    int64_t starts[MOST_INSTANCES];
} Occupied;

Occupied occupied_by(const Json *product, const Json *gpu);
bool fits(const Json *product, const Occupied *occupied, const Profile *profile, int64_t start);
int64_t chosen_start(const Json *product, const Occupied *occupied, const Profile *profile); /* -1: none */
int64_t remaining(const Json *product, const Occupied *occupied, const Profile *profile);
int64_t free_instance_id(const Json *product, const Profile *profile, const Json *gpu);

/* Compute instances within a GPU instance of `slices`. */
int64_t compute_slices(int64_t compute_profile); /* 0 for a profile that there is not */
int64_t compute_profile(int64_t slices);
bool is_compute_size(int64_t slices, int64_t size);
bool compute_starts_at(int64_t slices, int64_t size, int64_t start);
bool is_compute_start_free(const Json *instance, int64_t size, int64_t start);
int64_t multiprocessors(const Json *product, const Profile *profile, int64_t slices);

uint64_t bar1_bytes(const Json *product);
uint64_t mig_bar1_bytes(const Json *product, const Profile *profile);
uint64_t reserved_bytes(uint64_t total);

/* "3g.20gb", or "1c.3g.20gb" for a compute instance that has not all of its GPU instance. */
void print_device_name(Buffer *buffer, const Profile *profile, int64_t slices);

#endif
