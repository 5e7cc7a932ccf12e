#include "views.h"

#include <string.h>

#include "physics.h"
#include "sensors.h"

/* What a figure of the sensors truly is. */
static uint64_t truly(const struct wk_gpu *gpu, uint64_t sensed)
{
    return (uint64_t)((unsigned __int128)sensed * 1000000 / (unsigned)(1000000 + gpu->gain_ppm));
}

static void view_gpu(const struct wk_node *node, const struct wk_gpu *gpu, unsigned minor, uint64_t now_ns,
                     struct wk_gpu_view *view)
{
    struct wk_instant instant;
    struct wk_sums sums;
    wk_look(gpu, now_ns, &instant);
    wk_sum(gpu, now_ns, &sums);
    *view = (struct wk_gpu_view){
        .model = gpu->model,
        .minor = minor,
        .pci_bus = gpu->pci_bus,
        .gain_ppm = gpu->gain_ppm,
        .requested_mw = gpu->requested_mw,
        .module_mw = gpu->module_mw,
        .enforced_mw = wk_enforced_mw(gpu),
        .acting_mw = wk_acting_mw(gpu, now_ns),
        .natural_mw = (uint32_t)truly(gpu, instant.natural_mw),
        .power_mw = (uint32_t)truly(gpu, instant.power_mw),
        .sensed_mw = wk_sensed_mw(gpu, now_ns, gpu->model.power_window_ms),
        .clock_mhz = instant.clock_mhz,
        .speed_ppm = instant.speed_ppm,
        .temperature_mc = wk_temperature_mc(gpu, now_ns),
        .use_percent = instant.use_percent,
        .persistence = gpu->persistence,
        .mig = gpu->mig,
        .instance_count = gpu->instance_count,
        .process_count = gpu->process_count,
        .faults = gpu->faults,
        .energy_mj = truly(gpu, sums.energy_mj - gpu->counter_base_mj),
        .counter_mj = wk_counter_mj(gpu, now_ns),
        .capped_ns = wk_counted_capped_ns(gpu, now_ns),
        .xid_count = gpu->xid_count,
        .load_start_ns = gpu->load.start_ns,
        .load_end_ns = gpu->load.end_ns,
        .load_goal_ns = gpu->load.goal_ns,
        .load_done_ns = sums.work_ns,
    };
    memcpy(view->uuid, gpu->uuid, sizeof view->uuid);
    if (instant.busy)
        memcpy(view->load, gpu->load.profile, sizeof view->load);
    memcpy(view->instances, gpu->instances, sizeof view->instances);
    memcpy(view->processes, gpu->processes, sizeof view->processes);
    for (unsigned index = 0; index < node->gpu_count; index++)
        if (node->order[index] == minor)
            view->index = index;
}

void wk_view(const struct wk_state *state, uint64_t now_ns, struct wk_node_view *view)
{
    const struct wk_node *node = &state->node;
    *view = (struct wk_node_view){
        .clock_mode = node->clock_mode,
        .profile = node->profile,
        .gpu_count = node->gpu_count,
        .action_count = node->action_count,
        .faults = node->faults,
        .now_ns = now_ns,
        .driver_generation = node->driver_generation,
        .driver_loaded_ns = node->driver_loaded_ns,
    };
    memcpy(view->boot_id, node->boot_id, sizeof view->boot_id);
    memcpy(view->driver_version, node->driver_version, sizeof view->driver_version);
    memcpy(view->actions, node->actions, node->action_count * sizeof node->actions[0]);
    for (unsigned minor = 0; minor < node->gpu_count; minor++)
        view_gpu(node, &state->gpus[minor], minor, now_ns, &view->gpus[minor]);
}
