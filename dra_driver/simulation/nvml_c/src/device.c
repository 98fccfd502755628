/* Functions of one GPU: identity, memory, compute mode (device.py). MIG device handles get what real ones get. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu.h"
#include "memory_limits.h"

static bool is_mig_device(const Call *call) { return call->target.kind == MIG_DEVICE; }

static const char *text_in(const Json *object, const char *key) {
    const char *text = json_text(object, key);
    return text == NULL ? "" : text;
}

static nvmlReturn_t name(const Call *call, char *buffer, unsigned int length) {
    Instance found;
    nvmlReturn_t answer = is_mig_device(call) ? find_with_profile(call, &found) : NVML_SUCCESS;
    if (answer != NVML_SUCCESS) return answer;
    Buffer text = {0};
    buffer_print(&text, "%s", text_in(call->product, "name"));
    if (is_mig_device(call)) {
        buffer_print(&text, " MIG ");
        print_device_name(&text, &found.profile, json_number(found.compute, "slices", 0));
    }
    answer = give_text(buffer, length, text.data);
    buffer_free(&text);
    return answer;
}

NVML_API nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *buffer, unsigned int length) {
    WITH(device, ANY_DEVICE, name(&call, buffer, length));
}

static nvmlReturn_t uuid(const Call *call, char *buffer, unsigned int length) {
    if (!is_mig_device(call)) return give_text(buffer, length, text_in(call->gpu, "uuid"));
    Instance found;
    nvmlReturn_t answer = find_instance(call->gpu, &call->target, &found);
    return answer == NVML_SUCCESS ? give_text(buffer, length, text_in(found.compute, "uuid")) : answer;
}

NVML_API nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *buffer, unsigned int length) {
    WITH(device, ANY_DEVICE, uuid(&call, buffer, length));
}

NVML_API nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *buffer, unsigned int length) {
    WITH(device, GPU, give_text(buffer, length, text_in(call.gpu, "serial")));
}

NVML_API nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *minor) {
    WITH(device, GPU, give_number(minor, json_number(call.described, "minor", 0)));
}

NVML_API nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index) {
    WITH(device, GPU, give_number(index, call.target.gpu));
}

static nvmlReturn_t pci_info(const Call *call, nvmlPciInfo_t *pci) {
    unsigned int domain, bus, device;
    if (pci == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    if (sscanf(text_in(call->described, "pciBusID"), "%x:%x:%x.", &domain, &bus, &device) != 3) return NVML_ERROR_UNKNOWN;
    pci->domain = domain;
    pci->bus = bus;
    pci->device = device;
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", domain & 0xFFFF, bus & 0xFF, device & 0xFF);
    snprintf(pci->busId, sizeof pci->busId, "%08X:%02X:%02X.0", domain, bus, device);
    pci->pciDeviceId = (unsigned int)strtoul(text_in(call->product, "pciDeviceID"), NULL, 16);
    pci->pciSubSystemId = (unsigned int)strtoul(text_in(call->product, "pciSubsystemID"), NULL, 16);
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci) {
    WITH(device, GPU, pci_info(&call, pci));
}

static nvmlReturn_t memory_bytes(const Call *call, unsigned long long *total) {
    if (is_mig_device(call)) {
        Instance found;
        nvmlReturn_t answer = find_with_profile(call, &found);
        if (answer == NVML_SUCCESS) *total = (unsigned long long)found.profile.memory_mib << 20;
        return answer;
    }
    *total = json_unsigned(call->product, "memoryBytes");
    return *total == 0 ? NVML_ERROR_NOT_SUPPORTED : NVML_SUCCESS; /* it shares the host's */
}

static nvmlReturn_t memory_info(const Call *call, nvmlMemory_t *memory) {
    unsigned long long total;
    if (memory == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t answer = memory_bytes(call, &total);
    if (answer != NVML_SUCCESS) return answer;
    unsigned long long used = reserved_bytes(total);
    *memory = (nvmlMemory_t){.total = total, .free = total - used, .used = used};
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    WITH(device, ANY_DEVICE, memory_info(&call, memory));
}

static nvmlReturn_t memory_info_v2(const Call *call, nvmlMemory_v2_t *memory) {
    unsigned long long total;
    if (memory == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    if (memory->version != NVML_MEMORY_V2) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    nvmlReturn_t answer = memory_bytes(call, &total);
    if (answer != NVML_SUCCESS) return answer;
    memory->total = total;
    memory->reserved = reserved_bytes(total);
    memory->used = 0;
    uint64_t most, used;
    if (own_memory_view(call, &most, &used)) { /* asked from within a cgroup with a limit, it is about that limit */
        memory->total = most;
        memory->reserved = 0;
        memory->used = used;
    }
    memory->free = memory->total - memory->reserved - memory->used;
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    WITH(device, ANY_DEVICE, memory_info_v2(&call, memory));
}

static nvmlReturn_t bar1_memory_info(const Call *call, nvmlBAR1Memory_t *memory) {
    Instance found;
    if (memory == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t answer = is_mig_device(call) ? find_with_profile(call, &found) : NVML_SUCCESS;
    if (answer != NVML_SUCCESS) return answer;
    uint64_t total = is_mig_device(call) ? mig_bar1_bytes(call->product, &found.profile) : bar1_bytes(call->product);
    *memory = (nvmlBAR1Memory_t){.bar1Total = total, .bar1Free = total, .bar1Used = 0};
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *memory) {
    WITH(device, ANY_DEVICE, bar1_memory_info(&call, memory));
}

typedef struct {
    unsigned int code;
    const char *name;
} Code;

/* dra_driver/hardware/nvml/names.py has the same words. */
static const Code BRANDS[] = {
    {1, "Quadro"}, {2, "Tesla"}, {3, "NVS"}, {4, "Grid"}, {5, "GeForce"}, {6, "Titan"}, {7, "NvidiaVApps"},
    {8, "NvidiaVPC"}, {9, "NvidiaVCS"}, {10, "NvidiaVWS"}, {11, "NvidiaCloudGaming"}, {12, "QuadroRTX"},
    {13, "NvidiaRTX"}, {14, "Nvidia"}, {15, "GeForceRTX"}, {16, "TitanRTX"}, {0, NULL},
};
static const Code ARCHITECTURES[] = {
    {2, "Kepler"}, {3, "Maxwell"}, {4, "Pascal"}, {5, "Volta"}, {6, "Turing"}, {7, "Ampere"}, {8, "Ada Lovelace"},
    {9, "Hopper"}, {10, "Blackwell"}, {13, "Rubin"}, {0xFFFFFFFF, NULL},
};
static const Code ADDRESSING_MODES[] = {{0, "None"}, {1, "HMM"}, {2, "ATS"}, {0, NULL}};

/* The entry of a name, or the last one, for a name that there is not. */
static const Code *code_of(const Code *codes, const char *name) {
    while (codes->name != NULL && (name == NULL || strcmp(codes->name, name) != 0)) codes++;
    return codes;
}

NVML_API nvmlReturn_t nvmlDeviceGetBrand(nvmlDevice_t device, unsigned int *brand) {
    WITH(device, GPU, give_number(brand, code_of(BRANDS, json_text(call.product, "brand"))->code));
}

NVML_API nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t device, unsigned int *architecture) {
    WITH(device, GPU, give_number(architecture, code_of(ARCHITECTURES, json_text(call.product, "architecture"))->code));
}

static nvmlReturn_t compute_capability(const Call *call, int *major, int *minor) {
    if (major == NULL || minor == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    bool right = sscanf(text_in(call->product, "cudaComputeCapability"), "%d.%d", major, minor) == 2;
    return right ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}

NVML_API nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
    WITH(device, ANY_DEVICE, compute_capability(&call, major, minor));
}

static nvmlReturn_t addressing_mode(const Call *call, nvmlDeviceAddressingMode_t *mode) {
    if (mode == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    if (mode->version != NVML_ADDRESSING_MODE_V1) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    const Code *code = code_of(ADDRESSING_MODES, json_text(call->product, "addressingMode"));
    if (code->name == NULL) return NVML_ERROR_NOT_SUPPORTED;
    mode->value = code->code;
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetAddressingMode(nvmlDevice_t device, nvmlDeviceAddressingMode_t *mode) {
    WITH(device, GPU, addressing_mode(&call, mode));
}

NVML_API nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t device, unsigned int *mode) {
    WITH(device, GPU, give_number(mode, json_number(call.gpu, "computeMode", 0)));
}

enum { EXCLUSIVE_THREAD = 1, COMPUTE_MODES = 4 };

static nvmlReturn_t to_compute_mode(Edit *edit) {
    set_number(edit, "computeMode", *(const unsigned int *)edit->context);
    return NVML_SUCCESS;
}

static nvmlReturn_t set_compute_mode(const Call *call, unsigned int mode) {
    if (mode >= COMPUTE_MODES) return NVML_ERROR_INVALID_ARGUMENT;
    if (mode == EXCLUSIVE_THREAD) return NVML_ERROR_NOT_SUPPORTED; /* NVIDIA has removed it */
    if (!is_privileged(call->state)) return NVML_ERROR_NO_PERMISSION;
    return change_gpu(call, to_compute_mode, &mode);
}

NVML_API nvmlReturn_t nvmlDeviceSetComputeMode(nvmlDevice_t device, unsigned int mode) {
    WITH(device, GPU, set_compute_mode(&call, mode));
}

NVML_API nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *answer_is) {
    WITH(device, ANY_DEVICE, give_number(answer_is, is_mig_device(&call)));
}
