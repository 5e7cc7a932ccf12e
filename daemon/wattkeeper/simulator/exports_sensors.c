/* NVML's functions for the other sensors: temperature, fan, utilisation, memory and its errors. */
#include "exports.h"
#include "physics.h"

static unsigned temperature_c(const struct wk_call *call)
{
    return wk_temperature_mc(call->gpu, call->now_ns) / 1000;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensorType, unsigned int *temp)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, temp != NULL && sensorType == NVML_TEMPERATURE_GPU);
    if (answer == NVML_SUCCESS)
        *temp = temperature_c(&call);
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, temperature != NULL);
    if (answer == NVML_SUCCESS && temperature->version != nvmlTemperature_v1)
        answer = NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    else if (answer == NVML_SUCCESS && temperature->sensorType != NVML_TEMPERATURE_GPU)
        answer = NVML_ERROR_INVALID_ARGUMENT;
    else if (answer == NVML_SUCCESS)
        temperature->temperature = (int)temperature_c(&call);
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, nvmlTemperatureThresholds_t thresholdType,
                                               unsigned int *temp)
{
    struct wk_call call;
    bool valid = temp != NULL && thresholdType < NVML_TEMPERATURE_THRESHOLD_COUNT;
    nvmlReturn_t answer = wk_enter(&call, device, WK_CACHED, valid);
    if (answer == NVML_SUCCESS) {
        const struct wk_model *model = &call.gpu->model;
        unsigned threshold_c = thresholdType == NVML_TEMPERATURE_THRESHOLD_SHUTDOWN   ? model->shutdown_c
                               : thresholdType == NVML_TEMPERATURE_THRESHOLD_SLOWDOWN ? model->slowdown_c
                                                                                      : 0;
        if (threshold_c == 0)
            answer = NVML_ERROR_NOT_SUPPORTED;
        else
            *temp = threshold_c;
    }
    return wk_leave(&call, answer);
}

/* A fan turns at its slowest up to 30 C, and the faster the nearer the GPU is to slowing down. */
#define FAN_LEAST_PERCENT 30u
#define FAN_LEAST_C 30u

static unsigned fan_percent(const struct wk_call *call)
{
    unsigned now_c = temperature_c(call), slowdown_c = call->gpu->model.slowdown_c;
    if (now_c <= FAN_LEAST_C)
        return FAN_LEAST_PERCENT;
    if (slowdown_c <= FAN_LEAST_C || now_c >= slowdown_c)
        return 100;
    return FAN_LEAST_PERCENT + (100 - FAN_LEAST_PERCENT) * (now_c - FAN_LEAST_C) / (slowdown_c - FAN_LEAST_C);
}

WK_DEFINE_READ_IF(nvmlDeviceGetFanSpeed, WK_READ, unsigned int, speed, !wk_lacks(&call, WK_LACKS_FAN),
                  *speed = fan_percent(&call))
WK_DEFINE_READ_IF(nvmlDeviceGetNumFans, WK_CACHED, unsigned int, numFans, !wk_lacks(&call, WK_LACKS_FAN),
                  *numFans = 1)

nvmlReturn_t nvmlDeviceGetFanSpeed_v2(nvmlDevice_t device, unsigned int fan, unsigned int *speed)
{
    return fan == 0 ? nvmlDeviceGetFanSpeed(device, speed) : nvmlDeviceGetFanSpeed(device, NULL);
}

/* nvml.h says of all kinds of utilisation: "On MIG-enabled GPUs, querying ... is not currently supported". */
nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, utilization != NULL);
    if (answer == NVML_SUCCESS && call.gpu->mig)
        answer = NVML_ERROR_NOT_SUPPORTED;
    if (answer == NVML_SUCCESS) {
        struct wk_instant instant;
        wk_look(call.gpu, call.now_ns, &instant);
        *utilization = (nvmlUtilization_t){.gpu = instant.use_percent, .memory = instant.memory_use_percent};
    }
    return wk_leave(&call, answer);
}

/* Engines that no load uses. */
#define SAMPLING_US 100000u

static nvmlReturn_t read_unused(nvmlDevice_t device, unsigned int *utilization, unsigned int *samplingPeriodUs)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, utilization != NULL && samplingPeriodUs != NULL);
    if (answer == NVML_SUCCESS && call.gpu->mig)
        answer = NVML_ERROR_NOT_SUPPORTED;
    if (answer == NVML_SUCCESS) {
        *utilization = 0;
        *samplingPeriodUs = SAMPLING_US;
    }
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetEncoderUtilization(nvmlDevice_t device, unsigned int *utilization,
                                             unsigned int *samplingPeriodUs)
{
    return read_unused(device, utilization, samplingPeriodUs);
}

nvmlReturn_t nvmlDeviceGetDecoderUtilization(nvmlDevice_t device, unsigned int *utilization,
                                             unsigned int *samplingPeriodUs)
{
    return read_unused(device, utilization, samplingPeriodUs);
}

/* Memory, of a GPU or of an instance. The driver keeps some of a GPU's for itself; an instance's figure is net. */
#define RESERVED_MIB UINT64_C(512)

struct memory_mib {
    uint64_t total, reserved, used;
};

static struct memory_mib read_memory(const struct wk_call *call)
{
    struct wk_process processes[WK_MAX_PROCESSES];
    bool whole = call->instance == WK_ALL;
    struct memory_mib memory = {
        .total = whole ? call->gpu->model.memory_mib : call->gpu->instances[call->instance].memory_mib,
        .reserved = whole ? RESERVED_MIB : 0,
    };
    if (memory.reserved > memory.total)
        memory.reserved = memory.total;
    unsigned count = wk_list_processes(call, processes);
    for (unsigned i = 0; i < count; i++)
        memory.used += processes[i].memory_mib;
    if (memory.used > memory.total - memory.reserved)
        memory.used = memory.total - memory.reserved;
    return memory;
}

/* This version counts as used what is reserved. */
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter_any(&call, device, WK_READ, memory != NULL);
    if (answer == NVML_SUCCESS) {
        struct memory_mib mib = read_memory(&call);
        memory->total = mib.total << 20;
        memory->used = (mib.reserved + mib.used) << 20;
        memory->free = memory->total - memory->used;
    }
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter_any(&call, device, WK_READ, memory != NULL);
    if (answer == NVML_SUCCESS && memory->version != nvmlMemory_v2)
        answer = NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (answer == NVML_SUCCESS) {
        struct memory_mib mib = read_memory(&call);
        memory->total = mib.total << 20;
        memory->reserved = mib.reserved << 20;
        memory->used = mib.used << 20;
        memory->free = memory->total - memory->reserved - memory->used;
    }
    return wk_leave(&call, answer);
}

/* The window through which a CPU reaches the memory: all of it on boards for computing centres, rounded up to a power
 * of two, and 256 MiB on the rest, which lack ECC. An instance has its eighths of it. Little of it is in use. */
#define SMALL_WINDOW_MIB 256u
#define USED_WINDOW_MIB 1u

static uint64_t window_mib(const struct wk_call *call)
{
    uint64_t mib = SMALL_WINDOW_MIB;
    while (!wk_lacks(call, WK_LACKS_ECC) && mib < call->gpu->model.memory_mib)
        mib *= 2;
    bool whole = call->instance == WK_ALL;
    return whole ? mib : mib / 8 * wk_eighths(&call->gpu->model, &call->gpu->instances[call->instance]);
}

nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *bar1Memory)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter_any(&call, device, WK_READ, bar1Memory != NULL);
    if (answer == NVML_SUCCESS) {
        bar1Memory->bar1Total = window_mib(&call) << 20;
        bar1Memory->bar1Used = (uint64_t)USED_WINDOW_MIB << 20;
        bar1Memory->bar1Free = bar1Memory->bar1Total - bar1Memory->bar1Used;
    }
    return wk_leave(&call, answer);
}

/* The memory of a board with ECC has had no errors. */
static nvmlReturn_t count_errors(nvmlDevice_t device, bool valid, unsigned long long *count)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, valid && count != NULL);
    if (answer == NVML_SUCCESS && wk_lacks(&call, WK_LACKS_ECC))
        answer = NVML_ERROR_NOT_SUPPORTED;
    if (answer == NVML_SUCCESS)
        *count = 0;
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t errorType,
                                         nvmlEccCounterType_t counterType, unsigned long long *eccCounts)
{
    bool valid = errorType < NVML_MEMORY_ERROR_TYPE_COUNT && counterType < NVML_ECC_COUNTER_TYPE_COUNT;
    return count_errors(device, valid, eccCounts);
}

nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, nvmlMemoryErrorType_t errorType,
                                             nvmlEccCounterType_t counterType, nvmlMemoryLocation_t locationType,
                                             unsigned long long *count)
{
    bool valid = errorType < NVML_MEMORY_ERROR_TYPE_COUNT && counterType < NVML_ECC_COUNTER_TYPE_COUNT &&
                 locationType < NVML_MEMORY_LOCATION_COUNT;
    return count_errors(device, valid, count);
}
