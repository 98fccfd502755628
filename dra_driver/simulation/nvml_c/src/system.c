/* Functions of the whole system: versions, the list of GPUs, error texts (system.py). */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "gpu.h"

NVML_API const char *nvmlErrorString(nvmlReturn_t code) {
    static const char *const texts[] = {
        "Success", "Uninitialized", "Invalid Argument", "Not Supported", "No Permission", "Already Initialized",
        "Not Found", "Insufficient Size", "Insufficient Power", "Driver Not Loaded", "Timeout", "Irq Issue",
        "Library Not Found", "Function Not Found", "Corrupted Inforom", "Gpu Is Lost", "Reset Required",
        "Operating System", "Lib Rm Version Mismatch", "In use by another client", "Memory", "No data",
        "Vgpu Ecc Not Supported", "Insufficient Resources", "Freq Not Supported", "Argument version mismatch",
        "Deprecated", "Not Ready", "GPU Not Found", "Invalid State", "Reset Type Not Supported",
    };
    size_t number = (size_t)(unsigned)code;
    if (number < sizeof texts / sizeof *texts) return texts[number];
    return code == NVML_ERROR_UNKNOWN ? "Unknown" : "Unknown Error";
}

static const char *version_of(const Call *call) {
    const char *version = module_version(call->state);
    return version == NULL ? "" : version;
}

NVML_API nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    SYSTEM(give_text(version, length, version_of(&call)));
}

static nvmlReturn_t nvml_version(const Call *call, char *version, unsigned int length) {
    char text[128];
    snprintf(text, sizeof text, "%lld.%s", (long long)cuda_driver_version(call->state) / 1000, version_of(call));
    return give_text(version, length, text);
}

NVML_API nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length) {
    SYSTEM(nvml_version(&call, version, length));
}

static nvmlReturn_t cuda_version(const Call *call, int *version) {
    if (version == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    *version = (int)cuda_driver_version(call->state);
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) { SYSTEM(cuda_version(&call, version)); }

NVML_API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) { SYSTEM(cuda_version(&call, version)); }

/* The program of a process of this machine; "not found" for one that only the state knows. */
static nvmlReturn_t process_name(unsigned int pid, char *name, unsigned int length) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return NVML_ERROR_NOT_FOUND;
    Buffer words = {0};
    bool right = buffer_read(&words, descriptor);
    close(descriptor);
    nvmlReturn_t answer = right ? give_text(name, length, words.data) : NVML_ERROR_NOT_FOUND;
    buffer_free(&words);
    return answer;
}

NVML_API nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length) {
    SYSTEM(process_name(pid, name, length));
}

static int64_t gpu_count(const Call *call) { return json_count(json_get(call->state, "gpus")); }

NVML_API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) { SYSTEM(give_number(count, gpu_count(&call))); }

static nvmlReturn_t give_gpu(const Call *call, int64_t gpu, nvmlDevice_t *device) {
    if (gpu_is_lost(call->state, gpu)) return NVML_ERROR_GPU_IS_LOST;
    Target target = gpu_target(gpu);
    return give_handle(device, &target);
}

static nvmlReturn_t by_index(const Call *call, unsigned int index, nvmlDevice_t *device) {
    if (index >= gpu_count(call)) return NVML_ERROR_INVALID_ARGUMENT;
    return give_gpu(call, index, device);
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
    SYSTEM(by_index(&call, index, device));
}

static bool has_uuid(const Json *each, const char *uuid) {
    const char *own = json_text(each, "uuid");
    return own != NULL && strcmp(own, uuid) == 0;
}

static nvmlReturn_t by_uuid(const Call *call, const char *uuid, nvmlDevice_t *device) {
    if (uuid == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    int64_t index = 0;
    for (const Json *gpu = json_first(call->state, "gpus"); gpu != NULL; gpu = gpu->next, index++) {
        if (has_uuid(gpu, uuid)) return give_gpu(call, index, device);
        for (Instance at = {0}; next_mig_device(gpu, &at);) {
            if (!has_uuid(at.compute, uuid)) continue;
            if (gpu_is_lost(call->state, index)) return NVML_ERROR_GPU_IS_LOST;
            Target target = compute_target(MIG_DEVICE, index, at.instance, at.compute);
            return give_handle(device, &target);
        }
    }
    return NVML_ERROR_NOT_FOUND;
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
    SYSTEM(by_uuid(&call, uuid, device));
}

/* The bytes of a UUID do not tell a GPU's from a MIG device's, so both are looked for. */
static nvmlReturn_t by_uuid_bytes(const Call *call, const unsigned char *bytes, nvmlDevice_t *device) {
    static const char *const prefixes[] = {"GPU-", "MIG-"};
    nvmlReturn_t answer = NVML_ERROR_NOT_FOUND;
    for (int each = 0; each < 2 && answer == NVML_ERROR_NOT_FOUND; each++) {
        Buffer text = {0};
        buffer_print(&text, "%s", prefixes[each]);
        for (int at = 0; at < 16; at++)
            buffer_print(&text, "%s%02x", at == 4 || at == 6 || at == 8 || at == 10 ? "-" : "", bytes[at]);
        answer = by_uuid(call, text.data, device);
        buffer_free(&text);
    }
    return answer;
}

static nvmlReturn_t by_uuid_value(const Call *call, const nvmlUUID_t *uuid, nvmlDevice_t *device) {
    if (uuid == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    if (uuid->version != NVML_UUID_V1) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (uuid->type == 2) return by_uuid_bytes(call, uuid->value.bytes, device);
    if (uuid->type != 1 || memchr(uuid->value.str, '\0', sizeof uuid->value.str) == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    return by_uuid(call, uuid->value.str, device);
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByUUIDV(const nvmlUUID_t *uuid, nvmlDevice_t *device) {
    SYSTEM(by_uuid_value(&call, uuid, device));
}

/* "00000000:1A:00.0" and "0000:1a:00.0" are the same. */
static nvmlReturn_t by_pci_bus_id(const Call *call, const char *bus_id, nvmlDevice_t *device) {
    if (bus_id == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    char *rest;
    unsigned long domain = strtoul(bus_id, &rest, 16);
    if (rest == bus_id || *rest != ':') return NVML_ERROR_INVALID_ARGUMENT;
    int64_t index = 0;
    for (const Json *each = json_first(call->hardware, "gpus"); each != NULL; each = each->next, index++) {
        const char *own = json_text(each, "pciBusID");
        char *own_rest;
        if (own != NULL && strtoul(own, &own_rest, 16) == domain && strcasecmp(own_rest, rest) == 0)
            return give_gpu(call, index, device);
    }
    return NVML_ERROR_NOT_FOUND;
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device) {
    SYSTEM(by_pci_bus_id(&call, bus_id, device));
}
