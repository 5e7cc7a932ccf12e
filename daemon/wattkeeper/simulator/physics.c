#include "physics.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define PJ_PER_MJ UINT64_C(1000000000)

uint32_t wk_natural_mw(const struct wk_gpu *gpu)
{
    const struct wk_model *model = &gpu->model;
    return model->idle_mw + (uint32_t)((uint64_t)(model->peak_mw - model->idle_mw) * gpu->load_bp / 10000);
}

uint32_t wk_enforced_mw(const struct wk_gpu *gpu)
{
    if (gpu->oob_limit_mw != 0 && gpu->oob_limit_mw < gpu->requested_mw)
        return gpu->oob_limit_mw;
    return gpu->requested_mw;
}

uint32_t wk_power_mw(const struct wk_gpu *gpu)
{
    uint32_t natural = wk_natural_mw(gpu);
    uint32_t ceiling = wk_enforced_mw(gpu);
    if (ceiling < gpu->model.idle_mw)
        ceiling = gpu->model.idle_mw;
    return natural < ceiling ? natural : ceiling;
}

bool wk_capped(const struct wk_gpu *gpu)
{
    return wk_natural_mw(gpu) > wk_enforced_mw(gpu);
}

uint32_t wk_temperature_c(const struct wk_gpu *gpu)
{
    return 30 + (uint32_t)((uint64_t)45 * wk_power_mw(gpu) / gpu->model.peak_mw);
}

uint32_t wk_sm_clock_mhz(const struct wk_gpu *gpu)
{
    uint32_t idle = gpu->model.idle_mw;
    uint32_t natural = wk_natural_mw(gpu);
    if (natural == idle)
        return gpu->model.sm_clock_mhz / 5;
    return (uint32_t)(gpu->model.sm_clock_mhz * cbrt((double)(wk_power_mw(gpu) - idle) / (natural - idle)));
}

void wk_settle(struct wk_gpu *gpu, uint64_t now_ns)
{
    if (now_ns <= gpu->stamp_ns)
        return;
    uint64_t elapsed = now_ns - gpu->stamp_ns;
    unsigned __int128 picojoules = (unsigned __int128)wk_power_mw(gpu) * elapsed + gpu->energy_pj;
    gpu->energy_mj += (uint64_t)(picojoules / PJ_PER_MJ);
    gpu->energy_pj = (uint64_t)(picojoules % PJ_PER_MJ);
    if (wk_capped(gpu))
        gpu->capped_ns += elapsed;
    gpu->stamp_ns = now_ns;
}

uint64_t wk_now(const struct wk_state *state)
{
    if (state->clock_mode == WK_CLOCK_MANUAL)
        return state->manual_ns;
    struct timespec time;
    clock_gettime(CLOCK_BOOTTIME, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec + (uint64_t)state->offset_ns;
}

void wk_load_driver(struct wk_state *state, uint64_t now_ns)
{
    state->driver_generation++;
    state->driver_loaded_ns = now_ns;
    for (unsigned minor = 0; minor < state->gpu_count; minor++) {
        struct wk_gpu *gpu = &state->gpus[minor];
        gpu->requested_mw = gpu->model.default_mw;
        gpu->stamp_ns = now_ns;
        gpu->energy_mj = 0;
        gpu->energy_pj = 0;
        gpu->capped_ns = 0;
    }
}

void wk_adopt_boot(struct wk_state *state)
{
    if (strncmp(state->boot_id, wk_boot_id(), WK_BOOT_ID_SIZE) == 0)
        return;
    snprintf(state->boot_id, sizeof state->boot_id, "%s", wk_boot_id());
    state->clock_mode = WK_CLOCK_REAL;
    state->offset_ns = 0;
    wk_restart(state, 0);
}

void wk_restart(struct wk_state *state, uint64_t now_ns)
{
    wk_load_driver(state, now_ns);
    for (unsigned minor = 0; minor < state->gpu_count; minor++) {
        struct wk_gpu *gpu = &state->gpus[minor];
        gpu->load_bp = 0;
        gpu->hang = gpu->hang_ms = gpu->lost = gpu->set_ignored = gpu->set_refused = 0;
    }
}

static char boot_id[WK_BOOT_ID_SIZE];
static pthread_once_t boot_id_once = PTHREAD_ONCE_INIT;

static void read_boot_id(void)
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (file == NULL)
        return;
    if (fgets(boot_id, sizeof boot_id, file) != NULL)
        boot_id[strcspn(boot_id, "\n")] = '\0';
    fclose(file);
}

const char *wk_boot_id(void)
{
    pthread_once(&boot_id_once, read_boot_id);
    return boot_id;
}
