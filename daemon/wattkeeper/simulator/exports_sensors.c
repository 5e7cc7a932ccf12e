/* NVML's functions for the other sensors: temperature, utilisation, clocks, memory, processes. */
#include <stddef.h>

#include "physics.h"
#include "session.h"

static nvmlReturn_t read_event_reasons(nvmlDevice_t device, unsigned long long *reasons)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, reasons != NULL);
    if (answer == NVML_SUCCESS) {
        struct wk_instant instant;
        wk_look(call.gpu, call.now_ns, &instant);
        *reasons = !instant.busy    ? nvmlClocksEventReasonGpuIdle
                   : instant.capped ? nvmlClocksEventReasonSwPowerCap
                                    : nvmlClocksEventReasonNone;
    }
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *clocksEventReasons)
{
    return read_event_reasons(device, clocksEventReasons);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, unsigned long long *clocksThrottleReasons)
{
    return read_event_reasons(device, clocksThrottleReasons);
}

static nvmlReturn_t read_supported_reasons(nvmlDevice_t device, unsigned long long *reasons)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_CACHED, reasons != NULL);
    if (answer == NVML_SUCCESS)
        *reasons = nvmlClocksEventReasonGpuIdle | nvmlClocksEventReasonSwPowerCap;
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetSupportedClocksEventReasons(nvmlDevice_t device,
                                                      unsigned long long *supportedClocksEventReasons)
{
    return read_supported_reasons(device, supportedClocksEventReasons);
}

nvmlReturn_t nvmlDeviceGetSupportedClocksThrottleReasons(nvmlDevice_t device,
                                                         unsigned long long *supportedClocksThrottleReasons)
{
    return read_supported_reasons(device, supportedClocksThrottleReasons);
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensorType, unsigned int *temp)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, temp != NULL && sensorType == NVML_TEMPERATURE_GPU);
    if (answer == NVML_SUCCESS)
        *temp = wk_temperature_mc(call.gpu, call.now_ns) / 1000;
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
        temperature->temperature = (int)(wk_temperature_mc(call.gpu, call.now_ns) / 1000);
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, utilization != NULL);
    if (answer == NVML_SUCCESS) {
        struct wk_instant instant;
        wk_look(call.gpu, call.now_ns, &instant);
        *utilization = (nvmlUtilization_t){.gpu = instant.use_percent, .memory = instant.memory_use_percent};
    }
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t device, nvmlPstates_t *pState)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, pState != NULL);
    if (answer == NVML_SUCCESS)
        *pState = NVML_PSTATE_0; /* these boards stay in P0 */
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int *clock)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, clock != NULL && type < NVML_CLOCK_COUNT);
    if (answer == NVML_SUCCESS) {
        struct wk_instant instant;
        wk_look(call.gpu, call.now_ns, &instant);
        *clock = type == NVML_CLOCK_MEM ? call.gpu->model.memory_clock_mhz : instant.clock_mhz;
    }
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int *clock)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_CACHED, clock != NULL && type < NVML_CLOCK_COUNT);
    if (answer == NVML_SUCCESS)
        *clock = type == NVML_CLOCK_MEM ? call.gpu->model.memory_clock_mhz : call.gpu->model.sm_clock_mhz;
    return wk_leave(&call, answer);
}

/* No simulated program allocates memory: what is taken is what the driver keeps for itself. */
#define RESERVED_BYTES (512ull << 20)

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, memory != NULL);
    if (answer == NVML_SUCCESS) {
        memory->total = (unsigned long long)call.gpu->model.memory_mib << 20;
        memory->used = RESERVED_BYTES;
        memory->free = memory->total - memory->used;
    }
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, memory != NULL);
    if (answer == NVML_SUCCESS && memory->version != nvmlMemory_v2)
        answer = NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (answer == NVML_SUCCESS) {
        memory->total = (unsigned long long)call.gpu->model.memory_mib << 20;
        memory->reserved = RESERVED_BYTES;
        memory->used = 0;
        memory->free = memory->total - memory->reserved;
    }
    return wk_leave(&call, answer);
}

/* A load is a figure, not a process: the lists are empty. */
static nvmlReturn_t no_processes(nvmlDevice_t device, unsigned int *infoCount)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, infoCount != NULL);
    if (answer == NVML_SUCCESS)
        *infoCount = 0;
    return wk_leave(&call, answer);
}

#define DEFINE_NO_PROCESSES(function, type)                                                                          \
    nvmlReturn_t function(nvmlDevice_t device, unsigned int *infoCount, type *infos)                                 \
    {                                                                                                                \
        (void)infos;                                                                                                 \
        return no_processes(device, infoCount);                                                                      \
    }

DEFINE_NO_PROCESSES(nvmlDeviceGetComputeRunningProcesses, nvmlProcessInfo_v1_t)
DEFINE_NO_PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, nvmlProcessInfo_v2_t)
DEFINE_NO_PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, nvmlProcessInfo_t)
DEFINE_NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses, nvmlProcessInfo_v1_t)
DEFINE_NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2, nvmlProcessInfo_v2_t)
DEFINE_NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, nvmlProcessInfo_t)
