/* NVML's functions for power limits, power and energy: what Wattkeeper is about. */
#include <time.h>

#include "actions.h"
#include "clients.h"
#include "driver.h"
#include "physics.h"
#include "sensors.h"
#include "session.h"

/* Enters a call about limits, which some boards lack altogether. */
static nvmlReturn_t enter_limited(struct wk_call *call, nvmlDevice_t device, enum wk_cost cost, bool valid)
{
    nvmlReturn_t answer = wk_enter(call, device, cost, valid);
    bool lacks = answer == NVML_SUCCESS && (call->gpu->model.lacks & WK_LACKS_LIMIT) != 0;
    return lacks ? NVML_ERROR_NOT_SUPPORTED : answer;
}

static nvmlReturn_t read_milliwatts(nvmlDevice_t device, unsigned int *out, uint32_t (*figure)(const struct wk_gpu *))
{
    struct wk_call call;
    nvmlReturn_t answer = enter_limited(&call, device, WK_READ, out != NULL);
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
    struct wk_call call;
    nvmlReturn_t answer = wk_enter_any(&call, device, WK_READ, power != NULL); /* of a MIG instance: the GPU's */
    if (answer == NVML_SUCCESS)
        *power = wk_sensed_mw(call.gpu, call.now_ns, call.gpu->model.power_window_ms);
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned int *minLimit,
                                                          unsigned int *maxLimit)
{
    struct wk_call call;
    nvmlReturn_t answer = enter_limited(&call, device, WK_READ, minLimit != NULL && maxLimit != NULL);
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
    if (answer == NVML_SUCCESS && (call.gpu->model.lacks & WK_LACKS_ENERGY) != 0)
        answer = NVML_ERROR_NOT_SUPPORTED;
    if (answer == NVML_SUCCESS)
        *energy = wk_counter_mj(call.gpu, call.now_ns);
    return wk_leave(&call, answer);
}

/* Root is who may write the state file. A limit out of range is refused, not clamped. */
static nvmlReturn_t write_limit(struct wk_call *call, enum wk_kind kind, uint32_t limit_mw)
{
    const struct wk_model *model = &call->gpu->model;
    const struct wk_faults *faults = &call->gpu->faults;
    uint32_t low = kind == WK_SET_LIMIT ? model->min_mw : model->module_min_mw;
    uint32_t high = kind == WK_SET_LIMIT ? model->max_mw : model->module_max_mw;
    if (high == 0)
        return NVML_ERROR_NOT_SUPPORTED;
    if (!call->sim->writable)
        return NVML_ERROR_NO_PERMISSION;
    if (faults->set_answer != 0)
        return (nvmlReturn_t)faults->set_answer;
    if (limit_mw < low || limit_mw > high)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (faults->set_ignored)
        return NVML_SUCCESS;
    struct wk_change change;
    const struct wk_action action = {.kind = kind, .gpu = call->minor, .value = limit_mw};
    int error = wk_begin(call->sim, &change);
    if (error == 0) {
        wk_do(&change.state->node, change.state->gpus, 0, change.state->node.gpu_count, &action, change.now_ns);
        wk_commit(&change);
    }
    return wk_nvml_error(error);
}

static nvmlReturn_t set_limit(nvmlDevice_t device, const nvmlPowerValue_v2_t *value)
{
    struct wk_call call;
    nvmlReturn_t answer = enter_limited(&call, device, WK_SET, value != NULL);
    bool known_scope = answer == NVML_SUCCESS &&
                       (value->powerScope == NVML_POWER_SCOPE_GPU || value->powerScope == NVML_POWER_SCOPE_MODULE);
    if (answer == NVML_SUCCESS && value->version != nvmlPowerValue_v2)
        answer = NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    else if (answer == NVML_SUCCESS && !known_scope)
        answer = NVML_ERROR_NOT_SUPPORTED;
    if (answer == NVML_SUCCESS) {
        bool of_module = value->powerScope == NVML_POWER_SCOPE_MODULE;
        answer = write_limit(&call, of_module ? WK_SET_MODULE_LIMIT : WK_SET_LIMIT, value->powerValueMw);
        wk_tell_event(call.sim, WK_ON_SET_LIMIT, call.minor);
    }
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceSetPowerManagementLimit(nvmlDevice_t device, unsigned int limit)
{
    const nvmlPowerValue_v2_t value = {
        .version = nvmlPowerValue_v2, .powerScope = NVML_POWER_SCOPE_GPU, .powerValueMw = limit};
    return set_limit(device, &value);
}

nvmlReturn_t nvmlDeviceSetPowerManagementLimit_v2(nvmlDevice_t device, nvmlPowerValue_v2_t *powerValue)
{
    return set_limit(device, powerValue);
}

static uint64_t read_counter(const struct wk_call *call, unsigned field)
{
    return field == NVML_FI_DEV_PERF_POLICY_POWER ? wk_counted_capped_ns(call->gpu, call->now_ns)
                                                  : wk_counter_mj(call->gpu, call->now_ns);
}

/* Fields of the GPU alone. Answers false for one that this board lacks. */
static bool read_gpu_field(const struct wk_call *call, unsigned field, unsigned int *out)
{
    const struct wk_gpu *gpu = call->gpu;
    const struct wk_model *model = &gpu->model;
    switch (field) {
    case NVML_FI_DEV_POWER_AVERAGE:
        *out = wk_sensed_mw(gpu, call->now_ns, model->average_window_ms);
        return model->average_window_ms != 0;
    case NVML_FI_DEV_POWER_INSTANT:
        *out = wk_sensed_mw(gpu, call->now_ns, model->instant_window_ms);
        return true;
    case NVML_FI_DEV_POWER_MIN_LIMIT:
        *out = model->min_mw;
        return true;
    case NVML_FI_DEV_POWER_MAX_LIMIT:
        *out = model->max_mw;
        return true;
    case NVML_FI_DEV_POWER_DEFAULT_LIMIT:
        *out = model->default_mw;
        return true;
    case NVML_FI_DEV_POWER_CURRENT_LIMIT:
        *out = wk_enforced_mw(gpu);
        return true;
    case NVML_FI_DEV_POWER_REQUESTED_LIMIT:
        *out = gpu->requested_mw;
        return true;
    default:
        return false;
    }
}

/* Fields of the module that the GPU shares with a CPU: its power is the GPU's and its companion's. */
static bool read_module_field(const struct wk_call *call, unsigned field, unsigned int *out)
{
    const struct wk_model *model = &call->gpu->model;
    bool of_gpu = read_gpu_field(call, field, out);
    switch (field) {
    case NVML_FI_DEV_POWER_AVERAGE:
    case NVML_FI_DEV_POWER_INSTANT:
        *out += model->companion_mw;
        break;
    case NVML_FI_DEV_POWER_MIN_LIMIT:
        *out = model->module_min_mw;
        break;
    case NVML_FI_DEV_POWER_MAX_LIMIT:
        *out = model->module_max_mw;
        break;
    case NVML_FI_DEV_POWER_DEFAULT_LIMIT:
        *out = model->module_default_mw;
        break;
    default:
        *out = call->gpu->module_mw;
    }
    return of_gpu && model->module_max_mw != 0;
}

static bool is_limit(unsigned field)
{
    return field >= NVML_FI_DEV_POWER_MIN_LIMIT && field <= NVML_FI_DEV_POWER_REQUESTED_LIMIT &&
           field != NVML_FI_DEV_ENERGY;
}

static nvmlReturn_t read_field(const struct wk_call *call, nvmlFieldValue_t *field)
{
    bool energy = field->fieldId == NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION || field->fieldId == NVML_FI_DEV_ENERGY;
    uint32_t lacks = call->gpu->model.lacks;
    bool there;
    if (field->fieldId >= wk_driver.field_end || (is_limit(field->fieldId) && (lacks & WK_LACKS_LIMIT) != 0))
        return NVML_ERROR_NOT_SUPPORTED;
    if (energy || field->fieldId == NVML_FI_DEV_PERF_POLICY_POWER) {
        field->valueType = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
        field->value.ullVal = read_counter(call, field->fieldId);
        there = field->scopeId == NVML_POWER_SCOPE_GPU &&
                (lacks & (energy ? WK_LACKS_ENERGY : WK_LACKS_VIOLATIONS)) == 0;
    } else {
        field->valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
        if (field->scopeId == NVML_POWER_SCOPE_MODULE)
            there = read_module_field(call, field->fieldId, &field->value.uiVal);
        else
            there = field->scopeId == NVML_POWER_SCOPE_GPU &&
                    read_gpu_field(call, field->fieldId, &field->value.uiVal);
    }
    return there ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
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
            values[i].nvmlReturn = read_field(&call, &values[i]);
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
    if (answer == NVML_SUCCESS &&
        (perfPolicyType != NVML_PERF_POLICY_POWER || (call.gpu->model.lacks & WK_LACKS_VIOLATIONS) != 0))
        answer = NVML_ERROR_NOT_SUPPORTED;
    if (answer == NVML_SUCCESS) {
        violTime->referenceTime = call.now_ns / 1000;
        violTime->violationTime = wk_counted_capped_ns(call.gpu, call.now_ns);
    }
    return wk_leave(&call, answer);
}
