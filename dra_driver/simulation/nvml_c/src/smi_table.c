#include "smi_table.h"

#include <stdio.h>
#include <string.h>

#include "gpu.h"
#include "memory_limits.h"

enum { LINE = 160, LIMITS = 16, LIMIT_LINE = 512 };

static const char BEGINS[] = "  : table", ENDS[] = "  : end of table";

int64_t gpu_instance_minor(int64_t gpu_minor, int64_t gpu_instance) { return 3 + (gpu_minor * 15 + gpu_instance) * 9; }

int64_t compute_instance_minor(int64_t gpu_minor, int64_t gpu_instance, int64_t compute_instance) {
    return gpu_instance_minor(gpu_minor, gpu_instance) + 1 + compute_instance;
}

/* As a shell reads it again: in quotes where that is needed (shlex.quote). */
static void print_quoted(Buffer *line, const char *text) {
    static const char safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789@%+=:,./-_";
    if (*text != '\0' && text[strspn(text, safe)] == '\0') {
        buffer_print(line, "%s", text);
        return;
    }
    buffer_print(line, "'");
    for (; *text != '\0'; text++)
        if (*text == '\'') buffer_print(line, "'\"'\"'");
        else buffer_print(line, "%c", *text);
    buffer_print(line, "'");
}

/* The text of a variable that follows the state; NULL for another one. */
static const char *text_of(const char *variable, size_t length, const Json *gpu, const Json *product) {
    static const char *const modes[] = {"Default", "Exclusive_Thread", "Prohibited", "Exclusive_Process"};
    static const char *const short_modes[] = {"Default", "E. Thread", "Prohibited", "E. Process"};
    bool mig = has_mig(product), enabled = json_is_true(gpu, "migEnabled"), pending = json_is_true(gpu, "migPending");
    int64_t mode = json_number(gpu, "computeMode", 0) & 3;
    const struct {
        const char *name, *text;
    } texts[] = {
        {"v_compute_mode", modes[mode]},
        {"v_table_compute_mode", short_modes[mode]},
        {"v_mig_mode_current", !mig ? "N/A" : enabled ? "Enabled" : "Disabled"},
        {"v_mig_mode_pending", !mig ? "N/A" : pending ? "Enabled" : "Disabled"},
        {"v_table_ecc", mig && enabled ? "On" : "0"},
        {"v_utilization_gpu", enabled ? "N/A" : "0 %"},
        {"v_utilization_memory", enabled ? "N/A" : "0 %"},
        {"v_table_utilization", enabled ? "N/A" : "0%"},
    };
    for (size_t each = 0; each < sizeof texts / sizeof *texts; each++)
        if (strlen(texts[each].name) == length && strncmp(texts[each].name, variable, length) == 0) return texts[each].text;
    return NULL;
}

static unsigned long long mebibytes(uint64_t bytes) { return (unsigned long long)(bytes >> 20); }

static void print_mig_device(Buffer *line, const Json *product, int64_t minor, const Instance *device) {
    Profile profile;
    int64_t gpu_instance = json_number(device->instance, "id", 0), compute = json_number(device->compute, "id", 0);
    int64_t slices = json_number(device->compute, "slices", 0);
    if (!profile_by(product, "id", json_number(device->instance, "profile", -1), &profile)) return;
    uint64_t memory = (uint64_t)profile.memory_mib << 20, reserved = reserved_bytes(memory);
    unsigned long long bar1 = mebibytes(mig_bar1_bytes(product, &profile));
    const char *uuid = json_text(device->compute, "uuid");
    Buffer name = {0};
    print_device_name(&name, &profile, slices);
    buffer_print(line, "  mig %lld %lld %lld %lld ", (long long)gpu_instance_minor(minor, gpu_instance),
                 (long long)compute_instance_minor(minor, gpu_instance, compute), (long long)gpu_instance,
                 (long long)compute);
    print_quoted(line, uuid == NULL ? "" : uuid);
    buffer_print(line, " ");
    print_quoted(line, name.data);
    buffer_print(line, " %lld %lld %lld %lld %lld %lld 0", (long long)multiprocessors(product, &profile, slices),
                 (long long)profile.copy_engines, (long long)profile.engines[1], (long long)profile.engines[0],
                 (long long)profile.engines[3], (long long)profile.engines[2]);
    buffer_print(line, " %llu %llu 0 %llu %llu 0 %llu", mebibytes(memory), mebibytes(reserved),
                 mebibytes(memory - reserved), bar1, bar1);
    buffer_free(&name);
}

/* What a container sees whose cgroup has that limit: the words of memory.total and so on, assigned. */
static void print_limit(Buffer *line, const Json *state, const Json *limit) {
    const char *cgroup = json_text(limit, "cgroup"), *stand_in = cgroup_stand_in(state);
    size_t root = strlen(cgroup_root(state));
    unsigned long long hard = mebibytes(json_unsigned(limit, "hard"));
    Buffer key = {0}, words = {0};
    if (cgroup == NULL || strlen(cgroup) <= root) return;
    if (*stand_in != '\0') buffer_print(&key, "%s:%s|", stand_in, cgroup + root);
    else buffer_print(&key, "|0::%s|", cgroup + root);
    char total[32];
    snprintf(total, sizeof total, "%lluMiB", hard);
    buffer_print(&words, "v_memory_total='%llu MiB' v_memory_reserved='0 MiB' v_memory_used='0 MiB'", hard);
    buffer_print(&words, " v_memory_free='%llu MiB' v_table_memory='%10s / %9s'", hard, "0MiB", total);
    buffer_print(line, "  limit %llu ", (unsigned long long)json_unsigned(limit, "inode"));
    print_quoted(line, key.data);
    buffer_print(line, " ");
    print_quoted(line, words.data);
    buffer_free(&key);
    buffer_free(&words);
}

/* Where in the table a line is. */
typedef struct {
    const Json *state, *gpu, *described, *product;
    const Json *limit; /* the next one to be written */
    int limits;
    Instance device;
    bool in_devices, no_more_devices;
} Place;

static void at_gpu(Place *place, const Json *gpu, const Json *described) {
    const Json *products = json_get(json_get(json_get(place->state, "machine"), "hardware"), "products");
    place->gpu = gpu;
    place->described = described;
    place->product = json_at(products, json_number(described, "product", 0));
    place->limit = json_first(gpu, "memoryLimits");
    place->limits = 0;
    place->device = (Instance){0};
    place->in_devices = place->no_more_devices = false;
}

static const Json *next_limit(Place *place) {
    while (place->limit != NULL && json_unsigned(place->limit, "hard") == UNLIMITED) place->limit = place->limit->next;
    const Json *limit = place->limits++ < LIMITS ? place->limit : NULL;
    if (limit != NULL) place->limit = limit->next;
    return limit;
}

static void print_line(Buffer *table, Place *place, const char *line, size_t length) {
    Buffer new = {0};
    size_t equals = strcspn(line, "=");
    const char *text = length == LINE && strncmp(line, "  v_", 4) == 0 && equals < length
                           ? text_of(line + 2, equals - 2, place->gpu, place->product)
                           : NULL;
    if (text != NULL) {
        buffer_add(&new, line, equals + 1);
        print_quoted(&new, text);
        buffer_pad(&new, LINE);
    } else if (!place->in_devices && length == LIMIT_LINE && strncmp(line, "  v_", 4) != 0) {
        const Json *limit = next_limit(place);
        if (limit != NULL) print_limit(&new, place->state, limit);
        else buffer_print(&new, "  :");
        buffer_pad(&new, LIMIT_LINE);
    } else if (place->in_devices && length == LINE) {
        place->no_more_devices = place->no_more_devices || !next_mig_device(place->gpu, &place->device);
        if (!place->no_more_devices)
            print_mig_device(&new, place->product, json_number(place->described, "minor", 0), &place->device);
        else buffer_print(&new, "  :");
        buffer_pad(&new, LINE);
    } else buffer_add(&new, line, length);
    buffer_add(table, new.data == NULL ? "" : new.data, new.length);
    buffer_free(&new);
}

void smi_table_update(Buffer *updated, const char *script, const Json *state) {
    const char *begin = strstr(script, BEGINS), *end = begin == NULL ? NULL : strstr(begin, ENDS);
    if (end == NULL) return;
    const Json *hardware = json_get(json_get(state, "machine"), "hardware");
    const Json *gpu = json_first(state, "gpus"), *described = json_first(hardware, "gpus");
    Place place = {.state = state};
    at_gpu(&place, gpu, described);
    buffer_add(updated, script, (size_t)(begin - script));
    for (const char *line = begin; line < end;) {
        size_t length = strcspn(line, "\n");
        if (place.gpu == NULL) buffer_add(updated, line, length);
        else print_line(updated, &place, line, length);
        buffer_add(updated, "\n", 1);
        if (length == 5 && strncmp(line, "  gpu", 5) == 0) place.in_devices = true;
        if (length == 5 && strncmp(line, "  end", 5) == 0) {
            gpu = gpu == NULL ? NULL : gpu->next;
            described = described == NULL ? NULL : described->next;
            at_gpu(&place, gpu, described);
        }
        line += length + 1;
    }
    buffer_add(updated, end, strlen(end));
}
