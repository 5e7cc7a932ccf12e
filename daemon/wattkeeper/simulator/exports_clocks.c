/* NVML's functions for clocks, performance states and what holds clocks down. */
#include "exports.h"
#include "physics.h"

#define CLOCK_STEP_MHZ 15u

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

/* These boards stay in P0. */
WK_DEFINE_READ(nvmlDeviceGetPerformanceState, WK_READ, nvmlPstates_t, pState, *pState = NVML_PSTATE_0)
WK_DEFINE_READ(nvmlDeviceGetPowerState, WK_READ, nvmlPstates_t, pState, *pState = NVML_PSTATE_0)

static unsigned clock_of(const struct wk_call *call, nvmlClockType_t type, bool highest)
{
    const struct wk_model *model = &call->gpu->model;
    struct wk_instant instant = {.clock_mhz = model->sm_clock_mhz};
    if (!highest)
        wk_look(call->gpu, call->now_ns, &instant);
    return type == NVML_CLOCK_MEM ? model->memory_clock_mhz : instant.clock_mhz;
}

static nvmlReturn_t read_clock(nvmlDevice_t device, nvmlClockType_t type, bool highest, unsigned int *clock)
{
    struct wk_call call;
    enum wk_cost cost = highest ? WK_CACHED : WK_READ;
    nvmlReturn_t answer = wk_enter(&call, device, cost, clock != NULL && type < NVML_CLOCK_COUNT);
    if (answer == NVML_SUCCESS)
        *clock = clock_of(&call, type, highest);
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int *clock)
{
    return read_clock(device, type, false, clock);
}

nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int *clock)
{
    return read_clock(device, type, true, clock);
}

nvmlReturn_t nvmlDeviceGetMaxCustomerBoostClock(nvmlDevice_t device, nvmlClockType_t clockType, unsigned int *clockMHz)
{
    return read_clock(device, clockType, true, clockMHz);
}

/* Application clocks are on their way out of NVML, and no model here has them. */
nvmlReturn_t nvmlDeviceGetClock(nvmlDevice_t device, nvmlClockType_t clockType, nvmlClockId_t clockId,
                                unsigned int *clockMHz)
{
    struct wk_call call;
    bool valid = clockMHz != NULL && clockType < NVML_CLOCK_COUNT && clockId < NVML_CLOCK_ID_COUNT;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, valid);
    if (answer == NVML_SUCCESS && clockId != NVML_CLOCK_ID_CURRENT && clockId != NVML_CLOCK_ID_CUSTOMER_BOOST_MAX)
        answer = NVML_ERROR_NOT_SUPPORTED;
    if (answer == NVML_SUCCESS)
        *clockMHz = clock_of(&call, clockType, clockId == NVML_CLOCK_ID_CUSTOMER_BOOST_MAX);
    return wk_leave(&call, answer);
}

/* The clocks from `highest` down to `lowest`, as many as there is room for; `count` becomes how many there are. */
static nvmlReturn_t answer_clocks(unsigned highest, unsigned lowest, unsigned int *count, unsigned int *clocks)
{
    unsigned room = *count;
    *count = highest < lowest ? 0 : (highest - lowest) / CLOCK_STEP_MHZ + 1;
    if (*count > room || clocks == NULL)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < *count; i++)
        clocks[i] = highest - i * CLOCK_STEP_MHZ;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetSupportedMemoryClocks(nvmlDevice_t device, unsigned int *count, unsigned int *clocksMHz)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_CACHED, count != NULL);
    if (answer == NVML_SUCCESS) {
        unsigned only_mhz = call.gpu->model.memory_clock_mhz;
        answer = answer_clocks(only_mhz, only_mhz, count, clocksMHz);
    }
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetSupportedGraphicsClocks(nvmlDevice_t device, unsigned int memoryClockMHz,
                                                  unsigned int *count, unsigned int *clocksMHz)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_CACHED, count != NULL);
    if (answer == NVML_SUCCESS && memoryClockMHz != call.gpu->model.memory_clock_mhz)
        answer = NVML_ERROR_NOT_FOUND;
    if (answer == NVML_SUCCESS)
        answer = answer_clocks(call.gpu->model.sm_clock_mhz, call.gpu->model.min_clock_mhz, count, clocksMHz);
    return wk_leave(&call, answer);
}
