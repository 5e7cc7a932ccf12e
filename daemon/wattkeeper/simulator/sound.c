#include "sound.h"

#include "actions.h"

/* Bounds that no real board comes near; they keep sums of damaged figures from overflowing. */
#define MOST_MW WK_MOST_MW
#define MOST_MC 1000000u
#define MOST_UC 10000000u
#define MOST_HEAT_MC 1000000000
#define MOST_MS 86400000u
#define MOST_NS WK_MOST_NS
#define MOST_MJ UINT64_C(1000000000000000000)
#define LEAST_SEGMENT_US 1000u
#define LEAST_EVERY_NS UINT64_C(1000000)

/* Whether a text ends within its place and is such as clients can decode. */
static bool is_text(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '\0')
            return true;
        if (text[i] < ' ' || text[i] > '~')
            return false;
    }
    return false;
}

static bool is_time(uint64_t ns)
{
    return ns <= MOST_NS || ns == WK_NEVER;
}

bool wk_is_sound_action(const struct wk_action *action)
{
    return is_time(action->at_ns) && (action->every_ns == 0 || action->every_ns >= LEAST_EVERY_NS) &&
           action->every_ns <= MOST_NS && action->delay_ns <= MOST_NS && action->kind < WK_KINDS &&
           action->event < WK_EVENTS && action->value >= -(int64_t)MOST_MJ && action->value <= (int64_t)MOST_MJ;
}

bool wk_is_sound_node(const struct wk_node *node)
{
    if (node->gpu_count > WK_MAX_GPUS || node->clock_mode > WK_CLOCK_MANUAL || node->profile > WK_PROFILE_DRIVER ||
        node->action_count > WK_MAX_ACTIONS || node->manual_ns > MOST_NS || node->offset_ns > (int64_t)MOST_NS ||
        node->offset_ns < -(int64_t)MOST_NS || !is_text(node->boot_id, sizeof node->boot_id) ||
        !is_text(node->driver_version, sizeof node->driver_version) || !wk_is_sound_faults(&node->faults))
        return false;
    unsigned seen = 0;
    for (unsigned i = 0; i < node->gpu_count; i++) {
        if (node->order[i] >= node->gpu_count || (seen & 1u << node->order[i]) != 0)
            return false;
        seen |= 1u << node->order[i];
    }
    for (unsigned i = 0; i < node->action_count; i++)
        if (!wk_is_sound_action(&node->actions[i]) ||
            (i > 0 && node->actions[i - 1].at_ns > node->actions[i].at_ns))
            return false;
    return true;
}

static bool is_sound_model(const struct wk_model *model)
{
    return model->min_mw <= model->default_mw && model->default_mw <= model->max_mw && model->max_mw <= MOST_MW &&
           model->module_min_mw <= model->module_default_mw && model->module_default_mw <= model->module_max_mw &&
           model->module_max_mw <= MOST_MW && model->idle_mw <= model->peak_mw && model->idle_mw <= model->static_mw &&
           model->static_mw <= model->peak_mw && model->peak_mw <= MOST_MW && model->peak_mw > 0 &&
           model->companion_mw <= MOST_MW && model->voltage_floor_bp > 0 && model->voltage_floor_bp <= 10000 &&
           model->overshoot_bp <= 10000 && model->min_clock_mhz > 0 && model->min_clock_mhz <= model->sm_clock_mhz &&
           model->ambient_mc <= MOST_MC && model->resistance_uc <= MOST_UC && model->thermal_ms <= MOST_MS &&
           model->power_update_ms <= 100 && model->energy_update_ms <= 100 && model->power_window_ms <= 1000 &&
           model->instant_window_ms <= 1000 && model->average_window_ms <= 1000 &&
           model->mig_slices <= WK_MAX_INSTANCES && is_text(model->key, sizeof model->key) &&
           is_text(model->name, sizeof model->name);
}

bool wk_is_sound_segment(const struct wk_segment *segment)
{
    return segment->duration_us >= LEAST_SEGMENT_US && segment->level_bp <= 10000 && segment->memory_bp <= 10000;
}

static bool is_sound_load(const struct wk_gpu *gpu)
{
    const struct wk_load *load = &gpu->load;
    if (load->count > WK_MAX_SEGMENTS || load->start_ns > gpu->stamp_ns || !is_time(load->end_ns) ||
        load->goal_ns > MOST_NS || !is_text(load->profile, sizeof load->profile))
        return false;
    for (uint32_t i = 0; i < load->count; i++)
        if (!wk_is_sound_segment(&gpu->segments[i]))
            return false;
    return true;
}

bool wk_is_sound_faults(const struct wk_faults *faults)
{
    return faults->hang <= 1 && faults->hang_ms <= WK_MOST_HANG_MS && faults->slow_us <= WK_MOST_SLOW_US &&
           faults->set_ignored <= 1 && faults->counter_sticks <= 1 && faults->oob_limit_mw <= MOST_MW &&
           faults->stuck_mj <= MOST_MJ;
}

static bool is_sound_past(const struct wk_gpu *gpu)
{
    return gpu->energy_mj <= MOST_MJ && gpu->capped_ns <= MOST_NS && gpu->work_ns <= MOST_NS &&
           gpu->counter_base_mj <= MOST_MJ && gpu->counter_jump_mj <= (int64_t)MOST_MJ &&
           gpu->counter_jump_mj >= -(int64_t)MOST_MJ && gpu->capped_base_ns <= gpu->capped_ns &&
           gpu->stamp_ns <= MOST_NS && gpu->ramp_ns <= gpu->stamp_ns && gpu->driver_loaded_ns <= gpu->stamp_ns &&
           gpu->heat_mc <= MOST_HEAT_MC && gpu->heat_mc >= -MOST_HEAT_MC;
}

bool wk_is_sound_gpu(const struct wk_gpu *gpu)
{
    if (!is_sound_model(&gpu->model) || !is_sound_load(gpu) || !is_sound_past(gpu) || gpu->requested_mw > MOST_MW ||
        gpu->module_mw > MOST_MW || gpu->ramp_from_mw > MOST_MW || !wk_is_sound_faults(&gpu->faults) ||
        gpu->gain_ppm < -500000 || gpu->gain_ppm > 500000 || gpu->instance_count > WK_MAX_INSTANCES ||
        gpu->process_count > WK_MAX_PROCESSES || !is_text(gpu->uuid, sizeof gpu->uuid) ||
        !is_text(gpu->serial, sizeof gpu->serial))
        return false;
    for (uint32_t i = 0; i < gpu->instance_count; i++)
        if (!is_text(gpu->instances[i].uuid, sizeof gpu->instances[i].uuid))
            return false;
    for (uint32_t i = 0; i < gpu->process_count; i++)
        if (gpu->processes[i].use_bp > 10000 ||
            (gpu->processes[i].instance >= gpu->instance_count && gpu->processes[i].instance != WK_ALL))
            return false;
    return true;
}
