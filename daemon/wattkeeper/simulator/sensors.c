#include "sensors.h"

#include "physics.h"

#define NS_PER_MS UINT64_C(1000000)

static uint64_t last_update(const struct wk_gpu *gpu, uint64_t now_ns, uint32_t every_ms)
{
    return gpu->ideal_sensors || every_ms == 0 ? now_ns : now_ns - now_ns % (every_ms * NS_PER_MS);
}

uint32_t wk_sensed_mw(const struct wk_gpu *gpu, uint64_t now_ns, uint32_t window_ms)
{
    uint64_t until_ns = last_update(gpu, now_ns, gpu->model.power_update_ms);
    uint64_t window_ns = window_ms * NS_PER_MS;
    if (gpu->ideal_sensors || window_ns == 0 || window_ns > until_ns) {
        struct wk_instant instant;
        wk_look(gpu, now_ns, &instant);
        return instant.power_mw;
    }
    uint64_t gained_mj = wk_energy_at(gpu, until_ns) - wk_energy_at(gpu, until_ns - window_ns);
    return (uint32_t)((unsigned __int128)gained_mj * UINT64_C(1000000000) / window_ns);
}

uint64_t wk_counter_mj(const struct wk_gpu *gpu, uint64_t now_ns)
{
    if (gpu->faults.counter_sticks)
        return gpu->faults.stuck_mj;
    uint64_t at_ns = last_update(gpu, now_ns, gpu->model.energy_update_ms);
    if (at_ns < gpu->driver_loaded_ns)
        at_ns = gpu->driver_loaded_ns;
    uint64_t energy_mj = wk_energy_at(gpu, at_ns);
    __int128 counter_mj = energy_mj < gpu->counter_base_mj ? 0 : energy_mj - gpu->counter_base_mj;
    uint64_t since_ms = (at_ns - gpu->driver_loaded_ns) / NS_PER_MS;
    counter_mj += (__int128)gpu->model.companion_mw * since_ms / 1000 + gpu->counter_jump_mj;
    return counter_mj < 0 ? 0 : (uint64_t)counter_mj;
}

uint64_t wk_counted_capped_ns(const struct wk_gpu *gpu, uint64_t now_ns)
{
    struct wk_sums sums;
    wk_sum(gpu, now_ns, &sums);
    return sums.capped_ns - gpu->capped_base_ns;
}
