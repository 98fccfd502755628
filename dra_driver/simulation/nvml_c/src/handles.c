#include "handles.h"

#include <stdlib.h>

enum { FIRST = 0x6E760000, STEP = 0x100 };

static Target *given;
static size_t count, room;
static size_t *slots; /* where a target is in `given`, counted from 1; twice as many as there is room, by hash */

static bool same(const Target *one, const Target *other) {
    return one->kind == other->kind && one->gpu == other->gpu && one->gpu_instance == other->gpu_instance &&
           one->compute_instance == other->compute_instance && one->created == other->created;
}

/* The slot of the target, or the free one where it belongs. */
static size_t *slot_of(const Target *target) {
    const uint64_t parts[] = {target->kind, (uint64_t)target->gpu, (uint64_t)target->gpu_instance,
                              (uint64_t)target->compute_instance, (uint64_t)target->created};
    uint64_t hash = 14695981039346656037U;
    for (size_t each = 0; each < sizeof parts / sizeof *parts; each++) hash = (hash ^ parts[each]) * 1099511628211U;
    size_t at = (size_t)(hash >> 16) % (room * 2);
    while (slots[at] != 0 && !same(&given[slots[at] - 1], target)) at = (at + 1) % (room * 2);
    return &slots[at];
}

static void make_room(void) {
    room = room == 0 ? 64 : room * 2;
    free(slots);
    slots = calloc(room * 2, sizeof *slots);
    given = realloc(given, room * sizeof *given);
    if (slots == NULL || given == NULL) abort();
    for (size_t each = 0; each < count; each++) *slot_of(&given[each]) = each + 1;
}

void *handle_of(const Target *target) {
    if (count == room) make_room();
    size_t *slot = slot_of(target);
    if (*slot == 0) {
        given[count++] = *target;
        *slot = count;
    }
    return (void *)(uintptr_t)(FIRST + STEP * (*slot - 1));
}

bool handle_find(const void *handle, unsigned kinds, Target *target) {
    uintptr_t address = (uintptr_t)handle;
    if (address < FIRST || (address - FIRST) % STEP != 0 || (address - FIRST) / STEP >= count) return false;
    const Target *found = &given[(address - FIRST) / STEP];
    if ((found->kind & kinds) == 0) return false;
    *target = *found;
    return true;
}
