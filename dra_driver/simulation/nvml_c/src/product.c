#include "product.h"

#include <string.h>

static int64_t at_least_one(int64_t number) { return number < 1 ? 1 : number; } /* what is divided by */

static Profile read_profile(const Json *described) {
    static const char *const engines[ENGINES] = {"decoders", "encoders", "jpegEngines", "ofaEngines"};
    const Json *placements = json_get(described, "placements");
    const char *name = json_text(described, "name");
    Profile profile = {
        .name = name == NULL ? "" : name,
        .id = json_number(described, "id", -1),
        .enum_index = json_number(described, "enumIndex", -1),
        .slices = at_least_one(json_number(described, "slices", 1)),
        .instances = json_number(described, "instances", 1),
        .memory_mib = json_number(described, "memoryMiB", 0),
        .multiprocessors = json_number(described, "multiprocessors", 0),
        .copy_engines = json_number(described, "copyEngines", 0),
        .p2p = json_is_true(described, "p2p"),
        .size = at_least_one(json_number(placements, "size", 1)),
        .starts = json_get(placements, "starts"),
    };
    for (int each = 0; each < ENGINES; each++) profile.engines[each] = json_number(described, engines[each], 0);
    return profile;
}

static const Json *first_profile(const Json *product) { return json_first(product, "migProfiles"); }

bool has_mig(const Json *product) { return json_get(product, "migProfiles") != NULL; }

bool profile_by(const Json *product, const char *key, int64_t wanted, Profile *profile) {
    for (const Json *each = first_profile(product); each != NULL; each = each->next)
        if (json_number(each, key, -1) == wanted) {
            *profile = read_profile(each);
            return true;
        }
    return false;
}

bool starts_at(const Profile *profile, int64_t start) {
    for (const Json *each = json_at(profile->starts, 0); each != NULL; each = each->next)
        if (json_integer(each, -1) == start) return true;
    return false;
}

Profile whole_gpu(const Json *product) {
    Profile whole = {.name = "", .size = 1};
    for (const Json *each = first_profile(product); each != NULL; each = each->next) {
        Profile profile = read_profile(each);
        if (each == first_profile(product) || profile.size > whole.size) whole = profile;
    }
    return whole;
}

int64_t most_mig_devices(const Json *product) {
    int64_t most = 0;
    for (const Json *each = first_profile(product); each != NULL; each = each->next)
        if (json_number(each, "instances", 0) > most) most = json_number(each, "instances", 0);
    return most;
}

static void occupy(Occupied *occupied, const Profile *profile, int64_t start) {
    if (occupied->count == MOST_INSTANCES) return;
    occupied->profiles[occupied->count] = *profile;
    occupied->starts[occupied->count++] = start;
}

Occupied occupied_by(const Json *product, const Json *gpu) {
    Occupied occupied = {.count = 0};
    for (const Json *each = json_first(gpu, "instances"); each != NULL; each = each->next) {
        Profile profile;
        if (profile_by(product, "id", json_number(each, "profile", -1), &profile))
            occupy(&occupied, &profile, json_number(each, "start", 0));
    }
    return occupied;
}

bool fits(const Json *product, const Occupied *occupied, const Profile *profile, int64_t start) {
    Profile whole = whole_gpu(product);
    int64_t same = 0, slices = profile->slices, engines[ENGINES];
    memcpy(engines, profile->engines, sizeof engines);
    for (int64_t each = 0; each < occupied->count; each++) {
        const Profile *other = &occupied->profiles[each];
        int64_t at = occupied->starts[each];
        if (start < at + other->size && at < start + profile->size) return false;
        same += other->id == profile->id;
        slices += other->slices;
        for (int engine = 0; engine < ENGINES; engine++) engines[engine] += other->engines[engine];
    }
    if (same >= profile->instances || slices > whole.slices) return false;
    for (int engine = 0; engine < ENGINES; engine++)
        if (engines[engine] > whole.engines[engine]) return false;
    return true;
}

/* The upper half first, each half from below. */
int64_t chosen_start(const Json *product, const Occupied *occupied, const Profile *profile) {
    int64_t half = whole_gpu(product).size / 2, chosen = -1;
    for (const Json *each = json_at(profile->starts, 0); each != NULL; each = each->next) {
        int64_t start = json_integer(each, 0);
        if (!fits(product, occupied, profile, start)) continue;
        bool better = (start < half) == (chosen < half) ? start < chosen : start >= half;
        if (chosen < 0 || better) chosen = start;
    }
    return chosen;
}

int64_t remaining(const Json *product, const Occupied *occupied, const Profile *profile) {
    Occupied taken = *occupied;
    int64_t count = 0, start;
    while (taken.count < MOST_INSTANCES && (start = chosen_start(product, &taken, profile)) >= 0) {
        occupy(&taken, profile, start);
        count++;
    }
    return count;
}

static int64_t bits(uint64_t number) {
    int64_t length = 0;
    for (; number > 0; number >>= 1) length++;
    return length;
}

static bool has_instance_id(const Json *gpu, int64_t wanted) {
    for (const Json *each = json_first(gpu, "instances"); each != NULL; each = each->next)
        if (json_number(each, "id", -1) == wanted) return true;
    return false;
}

int64_t free_instance_id(const Json *product, const Profile *profile, const Json *gpu) {
    int64_t parts = whole_gpu(product).size / profile->size;
    int64_t candidate = parts < 1 ? 0 : (INT64_C(1) << bits((uint64_t)parts - 1)) - 1;
    while (has_instance_id(gpu, candidate)) candidate++;
    return candidate;
}

static const int64_t SLICES[] = {1, 2, 3, 4, 7, 8, 6}; /* by compute instance profile */
enum { COMPUTE_PROFILES = sizeof SLICES / sizeof *SLICES };

int64_t compute_slices(int64_t compute_profile) {
    return compute_profile >= 0 && compute_profile < COMPUTE_PROFILES ? SLICES[compute_profile] : 0;
}

int64_t compute_profile(int64_t slices) {
    int64_t profile = 0;
    while (profile < COMPUTE_PROFILES && SLICES[profile] != slices) profile++;
    return profile;
}

bool is_compute_size(int64_t slices, int64_t size) {
    return compute_profile(size) < COMPUTE_PROFILES && (size == slices || 2 * size <= slices + 1);
}

bool compute_starts_at(int64_t slices, int64_t size, int64_t start) {
    return start >= 0 && start % size == 0 && start + size <= slices;
}

bool is_compute_start_free(const Json *instance, int64_t size, int64_t start) {
    for (const Json *each = json_first(instance, "computeInstances"); each != NULL; each = each->next) {
        int64_t other = json_number(each, "start", 0), length = json_number(each, "slices", 0);
        if (start < other + length && start + size > other) return false;
    }
    return true;
}

int64_t multiprocessors(const Json *product, const Profile *profile, int64_t slices) {
    if (slices == profile->slices) return profile->multiprocessors;
    Profile smallest = *profile;
    for (const Json *each = first_profile(product); each != NULL; each = each->next) {
        Profile other = read_profile(each);
        bool fewer = other.slices == smallest.slices ? other.multiprocessors < smallest.multiprocessors
                                                     : other.slices < smallest.slices;
        if (fewer) smallest = other;
    }
    return smallest.multiprocessors * slices / smallest.slices;
}

uint64_t bar1_bytes(const Json *product) {
    uint64_t memory = json_unsigned(product, "memoryBytes");
    return memory == 0 || memory > UINT64_MAX / 2 ? 0 : UINT64_C(1) << bits(memory - 1);
}

uint64_t mig_bar1_bytes(const Json *product, const Profile *profile) {
    return bar1_bytes(product) * (uint64_t)profile->size / (uint64_t)whole_gpu(product).size;
}

uint64_t reserved_bytes(uint64_t total) { return total / 128; }

void print_device_name(Buffer *buffer, const Profile *profile, int64_t slices) {
    if (slices != profile->slices) buffer_print(buffer, "%lldc.", (long long)slices);
    buffer_print(buffer, "%s", profile->name);
}
