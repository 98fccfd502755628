/* What a monitoring tool asks for, on whole GPUs: an idle board's readings (telemetry.py, idle.py). */
#include <string.h>

#include "gpu.h"

enum { SENSOR_GPU = 0, GRAPHICS_CLOCK = 0, SM_CLOCK = 1, MEMORY_CLOCK = 2, IDLE_SM_MHZ = 345, ENABLED = 1 };

static int celsius(int64_t gpu) { return 29 + (int)(gpu % 4); }

static nvmlReturn_t temperature(const Call *call, unsigned int sensor, unsigned int *degrees) {
    if (sensor != SENSOR_GPU) return NVML_ERROR_INVALID_ARGUMENT;
    return give_number(degrees, celsius(call->target.gpu));
}

NVML_API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned int sensor, unsigned int *degrees) {
    WITH(device, GPU, temperature(&call, sensor, degrees));
}

static nvmlReturn_t temperature_v(const Call *call, nvmlTemperature_t *reading) {
    if (reading == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    if (reading->version != NVML_TEMPERATURE_V1) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (reading->sensorType != SENSOR_GPU) return NVML_ERROR_INVALID_ARGUMENT;
    reading->temperature = celsius(call->target.gpu);
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *reading) {
    WITH(device, GPU, temperature_v(&call, reading));
}

static nvmlReturn_t power(const Call *call, unsigned int *milliwatts, int64_t percent) {
    if (milliwatts == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    int64_t limit = json_number(call->product, "powerLimitMilliwatts", 0);
    return limit == 0 ? NVML_ERROR_NOT_SUPPORTED : give_number(milliwatts, limit * percent / 100);
}

NVML_API nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *milliwatts) {
    WITH(device, GPU, power(&call, milliwatts, 15 + call.target.gpu % 4));
}

NVML_API nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned int *milliwatts) {
    WITH(device, GPU, power(&call, milliwatts, 100));
}

NVML_API nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int *milliwatts) {
    WITH(device, GPU, power(&call, milliwatts, 100));
}

static nvmlReturn_t utilization(const Call *call, nvmlUtilization_t *rates) {
    if (json_is_true(call->gpu, "migEnabled")) return NVML_ERROR_NOT_SUPPORTED; /* NVML has none of a GPU in MIG mode */
    if (rates == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    *rates = (nvmlUtilization_t){0};
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates) {
    WITH(device, GPU, utilization(&call, rates));
}

NVML_API nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t device, unsigned int *state) {
    WITH(device, GPU, give_number(state, 0)); /* data-centre boards idle in P0 */
}

static nvmlReturn_t clock_of(const Call *call, unsigned int kind, unsigned int *megahertz, bool highest) {
    const Json *clocks = json_get(call->product, "maxClocks");
    if (clocks == NULL || kind > MEMORY_CLOCK) return NVML_ERROR_NOT_SUPPORTED;
    if (kind == MEMORY_CLOCK) return give_number(megahertz, json_number(clocks, "memoryMHz", 0));
    return give_number(megahertz, highest ? json_number(clocks, "smMHz", 0) : IDLE_SM_MHZ);
}

NVML_API nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned int kind, unsigned int *megahertz) {
    WITH(device, GPU, clock_of(&call, kind, megahertz, false));
}

NVML_API nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned int kind, unsigned int *megahertz) {
    WITH(device, GPU, clock_of(&call, kind, megahertz, true));
}

NVML_API nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, unsigned int *mode) {
    WITH(device, GPU, give_number(mode, ENABLED));
}

static nvmlReturn_t ecc_mode(unsigned int *current, unsigned int *pending) {
    if (current == NULL || pending == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    *current = *pending = ENABLED;
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
    WITH(device, GPU, ecc_mode(current, pending));
}

static nvmlReturn_t ecc_errors(unsigned int kind, unsigned int counter, unsigned long long *count) {
    if (kind > 1 || counter > 1 || count == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    *count = 0;
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned int kind, unsigned int counter,
                                                  unsigned long long *count) {
    WITH(device, GPU, ecc_errors(kind, counter, count));
}

/* The clients of the device `uuid`, as far as there is room for them; how many there are. */
static unsigned int list_processes(const Json *gpu, const char *uuid, nvmlProcessInfo_t *infos, unsigned int room) {
    unsigned int number = 0;
    for (const Json *each = json_first(gpu, "clients"); each != NULL; each = each->next) {
        const char *used = json_text(each, "uuid");
        if (used == NULL || uuid == NULL || strcmp(used, uuid) != 0 || !is_client_there(each)) continue;
        if (number < room)
            infos[number] = (nvmlProcessInfo_t){.pid = (unsigned int)json_number(each, "pid", 0),
                                                .gpuInstanceId = NVML_NO_INSTANCE,
                                                .computeInstanceId = NVML_NO_INSTANCE};
        number++;
    }
    return number;
}

static nvmlReturn_t compute_processes(const Call *call, unsigned int *count, nvmlProcessInfo_t *infos) {
    Instance found = {0};
    if (call->target.kind == MIG_DEVICE) {
        nvmlReturn_t answer = find_instance(call->gpu, &call->target, &found);
        if (answer != NVML_SUCCESS) return answer;
    }
    if (count == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    const char *uuid = json_text(found.compute != NULL ? found.compute : call->gpu, "uuid");
    unsigned int room = *count;
    *count = list_processes(call->gpu, uuid, NULL, 0);
    if (room < *count) return NVML_ERROR_INSUFFICIENT_SIZE;
    if (*count > 0 && infos == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    *count = list_processes(call->gpu, uuid, infos, *count);
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
                                                              nvmlProcessInfo_t *infos) {
    WITH(device, ANY_DEVICE, compute_processes(&call, count, infos));
}

NVML_API nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
                                                               nvmlProcessInfo_t *infos) {
    (void)infos;
    WITH(device, GPU, give_number(count, 0));
}

NVML_API nvmlReturn_t nvmlDeviceGetVirtualizationMode(nvmlDevice_t device, unsigned int *mode) {
    WITH(device, GPU, give_number(mode, 0)); /* on the machine itself */
}
