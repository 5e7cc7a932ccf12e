/* nvmlDeviceGetSamples: what the driver has kept of the last second. Power is known exactly for so long; of the rest
 * nothing from before the last change of the GPU is known, and no sample is made up. */
#include "exports.h"
#include "physics.h"

#define SECOND_NS UINT64_C(1000000000)
#define IDEAL_PERIOD_NS UINT64_C(20000000) /* of sensors that are always up to date */

/* The samples of an entered call: times of the GPU that are `period_ns` apart, up to `last_ns`. */
struct series {
    nvmlSamplingType_t type;
    uint64_t period_ns, last_ns;
    unsigned count;
    unsigned long long last_us; /* of the wall clock, at `last_ns` */
};

static bool is_use(nvmlSamplingType_t type)
{
    return type == NVML_GPU_UTILIZATION_SAMPLES || type == NVML_MEMORY_UTILIZATION_SAMPLES;
}

static bool is_power(nvmlSamplingType_t type)
{
    return type == NVML_TOTAL_POWER_SAMPLES;
}

static void lay_out(const struct wk_call *call, nvmlSamplingType_t type, struct series *series)
{
    uint64_t update_ns = call->gpu->model.power_update_ms * UINT64_C(1000000);
    uint64_t period_ns = call->gpu->ideal_sensors || update_ns == 0 ? IDEAL_PERIOD_NS : update_ns;
    uint64_t earliest_ns = call->now_ns > SECOND_NS ? call->now_ns - SECOND_NS : 0;
    uint64_t last_ns = call->now_ns - call->now_ns % period_ns;
    if (!is_power(type) && earliest_ns < call->gpu->stamp_ns)
        earliest_ns = call->gpu->stamp_ns;
    if (last_ns < earliest_ns)
        last_ns = call->now_ns;
    if (earliest_ns > last_ns)
        earliest_ns = last_ns; /* only in a damaged file */
    *series = (struct series){.type = type, .period_ns = period_ns, .last_ns = last_ns};
    series->count = (unsigned)((last_ns - earliest_ns) / period_ns) + !is_power(type);
    series->last_us = wk_wall_us() - (call->now_ns - last_ns) / 1000;
}

/* How many of the samples are newer than what the caller has seen. The wall clock and the GPU's are not read at the
 * same instant, so half a period is nothing new. */
static unsigned count_newer(const struct series *series, unsigned long long last_seen_us)
{
    unsigned long long period_us = series->period_ns / 1000, slack_us = last_seen_us == 0 ? 0 : period_us / 2;
    if (series->last_us <= last_seen_us + slack_us || last_seen_us > UINT64_MAX / 2)
        return 0;
    unsigned long long newer = (series->last_us - last_seen_us - slack_us - 1) / period_us + 1;
    return newer < series->count ? (unsigned)newer : series->count;
}

static unsigned value_at(const struct wk_call *call, const struct series *series, uint64_t at_ns)
{
    struct wk_instant instant;
    if (is_power(series->type)) {
        uint64_t gained_mj = wk_energy_at(call->gpu, at_ns) - wk_energy_at(call->gpu, at_ns - series->period_ns);
        return (unsigned)(gained_mj * SECOND_NS / series->period_ns);
    }
    wk_look(call->gpu, at_ns, &instant);
    return series->type == NVML_GPU_UTILIZATION_SAMPLES      ? instant.use_percent
           : series->type == NVML_MEMORY_UTILIZATION_SAMPLES ? instant.memory_use_percent
           : series->type == NVML_PROCESSOR_CLK_SAMPLES      ? instant.clock_mhz
                                                             : call->gpu->model.memory_clock_mhz;
}

static bool is_sampled(const struct wk_call *call, nvmlSamplingType_t type)
{
    return is_power(type) || (is_use(type) && !call->gpu->mig) || type == NVML_PROCESSOR_CLK_SAMPLES ||
           type == NVML_MEMORY_CLK_SAMPLES;
}

/* The oldest that are newer first, so that one who goes on from the last misses none. */
static nvmlReturn_t answer_samples(const struct wk_call *call, nvmlSamplingType_t type,
                                   unsigned long long last_seen_us, unsigned int *count, nvmlSample_t *samples)
{
    struct series series;
    lay_out(call, type, &series);
    unsigned newer = count_newer(&series, last_seen_us);
    if (newer == 0)
        return NVML_ERROR_NOT_FOUND;
    if (samples == NULL || newer < *count)
        *count = newer;
    for (unsigned i = 0; samples != NULL && i < *count; i++) {
        uint64_t back_ns = (newer - 1 - i) * series.period_ns;
        samples[i].timeStamp = series.last_us - back_ns / 1000;
        samples[i].sampleValue = (nvmlValue_t){.uiVal = value_at(call, &series, series.last_ns - back_ns)};
    }
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetSamples(nvmlDevice_t device, nvmlSamplingType_t type, unsigned long long lastSeenTimeStamp,
                                  nvmlValueType_t *sampleValType, unsigned int *sampleCount, nvmlSample_t *samples)
{
    struct wk_call call;
    bool valid = sampleValType != NULL && sampleCount != NULL && (samples == NULL || *sampleCount > 0) &&
                 type < NVML_SAMPLINGTYPE_COUNT;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, valid);
    if (answer == NVML_SUCCESS && !is_sampled(&call, type))
        answer = NVML_ERROR_NOT_SUPPORTED;
    if (answer == NVML_SUCCESS) {
        *sampleValType = NVML_VALUE_TYPE_UNSIGNED_INT;
        answer = answer_samples(&call, type, lastSeenTimeStamp, sampleCount, samples);
    }
    return wk_leave(&call, answer);
}
