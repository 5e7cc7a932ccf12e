/* NVML's functions for power limits, power and energy: what Wattkeeper is about. */
#include <errno.h>
#include <time.h>

#include "physics.h"
#include "session.h"

static nvmlReturn_t read_milliwatts(nvmlDevice_t device, unsigned int *out, uint32_t (*figure)(const struct wk_gpu *))
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, out != NULL);
    if (answer == NVML_SUCCESS)
        *out = figure(call.gpu);
    return wk_leave(&call, answer);
}

static uint32_t requested_mw(const struct wk_gpu *gpu)
{
    return gpu->requested_mw;
}

static uint32_t default_mw(const struct wk_gpu *gpu)
{
    return gpu->model.default_mw;
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned int *limit)
{
    return read_milliwatts(device, limit, requested_mw);
}

nvmlReturn_t nvmlDeviceGetPowerManagementDefaultLimit(nvmlDevice_t device, unsigned int *defaultLimit)
{
    return read_milliwatts(device, defaultLimit, default_mw);
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int *limit)
{
    return read_milliwatts(device, limit, wk_enforced_mw);
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *power)
{
    return read_milliwatts(device, power, wk_power_mw);
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned int *minLimit,
                                                          unsigned int *maxLimit)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, minLimit != NULL && maxLimit != NULL);
    if (answer == NVML_SUCCESS) {
        *minLimit = call.gpu->model.min_mw;
        *maxLimit = call.gpu->model.max_mw;
    }
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *energy)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, energy != NULL);
    if (answer == NVML_SUCCESS)
        *energy = call.gpu->energy_mj;
    return wk_leave(&call, answer);
}

/* Root is who may write the state file. A limit out of range is refused, not clamped. */
static nvmlReturn_t write_limit(struct wk_call *call, uint32_t limit_mw)
{
    const struct wk_gpu *gpu = call->gpu;
    if (!call->sim->writable || gpu->set_refused)
        return NVML_ERROR_NO_PERMISSION;
    if (limit_mw < gpu->model.min_mw || limit_mw > gpu->model.max_mw)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (gpu->set_ignored)
        return NVML_SUCCESS;
    struct wk_change change;
    int error = wk_begin(call->sim, &change);
    if (error == 0) {
        change.state.gpus[call->minor].requested_mw = limit_mw;
        wk_commit(&change);
    }
    return wk_nvml_error(error);
}

nvmlReturn_t nvmlDeviceSetPowerManagementLimit(nvmlDevice_t device, unsigned int limit)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_SET, true);
    if (answer == NVML_SUCCESS)
        answer = write_limit(&call, limit);
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceSetPowerManagementLimit_v2(nvmlDevice_t device, nvmlPowerValue_v2_t *powerValue)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_SET, powerValue != NULL);
    if (answer == NVML_SUCCESS && powerValue->version != nvmlPowerValue_v2)
        answer = NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    else if (answer == NVML_SUCCESS && powerValue->powerScope != NVML_POWER_SCOPE_GPU)
        answer = NVML_ERROR_NOT_SUPPORTED; /* none of these boards is a module with a limit of its own */
    if (answer == NVML_SUCCESS)
        answer = write_limit(&call, powerValue->powerValueMw);
    return wk_leave(&call, answer);
}

static nvmlReturn_t read_field(const struct wk_gpu *gpu, nvmlFieldValue_t *field)
{
    field->valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
    switch (field->fieldId) {
    case NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION:
    case NVML_FI_DEV_ENERGY:
        field->valueType = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
        field->value.ullVal = gpu->energy_mj;
        break;
    case NVML_FI_DEV_PERF_POLICY_POWER:
        field->valueType = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
        field->value.ullVal = gpu->capped_ns;
        break;
    case NVML_FI_DEV_POWER_AVERAGE:
        if (!gpu->model.has_average_power)
            return NVML_ERROR_NOT_SUPPORTED;
        field->value.uiVal = wk_power_mw(gpu);
        break;
    case NVML_FI_DEV_POWER_INSTANT:
        field->value.uiVal = wk_power_mw(gpu);
        break;
    case NVML_FI_DEV_POWER_MIN_LIMIT:
        field->value.uiVal = gpu->model.min_mw;
        break;
    case NVML_FI_DEV_POWER_MAX_LIMIT:
        field->value.uiVal = gpu->model.max_mw;
        break;
    case NVML_FI_DEV_POWER_DEFAULT_LIMIT:
        field->value.uiVal = gpu->model.default_mw;
        break;
    case NVML_FI_DEV_POWER_CURRENT_LIMIT:
        field->value.uiVal = wk_enforced_mw(gpu);
        break;
    case NVML_FI_DEV_POWER_REQUESTED_LIMIT:
        field->value.uiVal = gpu->requested_mw;
        break;
    default:
        return NVML_ERROR_NOT_SUPPORTED;
    }
    return field->scopeId == NVML_POWER_SCOPE_GPU ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int valuesCount, nvmlFieldValue_t *values)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, valuesCount > 0 && values != NULL);
    if (answer == NVML_SUCCESS) {
        struct timespec time;
        clock_gettime(CLOCK_REALTIME, &time);
        for (int i = 0; i < valuesCount; i++) {
            values[i].timestamp = (long long)time.tv_sec * 1000000 + time.tv_nsec / 1000;
            values[i].latencyUsec = 0;
            values[i].nvmlReturn = read_field(call.gpu, &values[i]);
        }
    }
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetViolationStatus(nvmlDevice_t device, nvmlPerfPolicyType_t perfPolicyType,
                                          nvmlViolationTime_t *violTime)
{
    struct wk_call call;
    nvmlReturn_t answer =
        wk_enter(&call, device, WK_READ, violTime != NULL && perfPolicyType < NVML_PERF_POLICY_COUNT);
    if (answer == NVML_SUCCESS && perfPolicyType != NVML_PERF_POLICY_POWER)
        answer = NVML_ERROR_NOT_SUPPORTED;
    if (answer == NVML_SUCCESS) {
        violTime->referenceTime = call.now_ns / 1000;
        violTime->violationTime = call.gpu->capped_ns;
    }
    return wk_leave(&call, answer);
}
