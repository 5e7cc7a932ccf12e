#include "actions.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "nvml_header.h"
#include "physics.h"
#include "profiles.h"
#include "sensors.h"
#include "sound.h"

/* So many doings are made good at once. Where more are due, repetitions further back than the last are left out: a
 * state that nobody changed for a year, with something planned for every millisecond, would keep clients busy. */
#define MOST_DOINGS 20000u
#define MOST_JUMP_MJ INT64_C(500000000000000000) /* the counter that it is part of stays below what sound.c takes */

static bool limit_fits(const struct wk_gpu *gpu, const struct wk_action *action)
{
    if (action->kind == WK_SET_MODULE_LIMIT)
        return action->value >= gpu->model.module_min_mw && action->value <= gpu->model.module_max_mw &&
               gpu->model.module_max_mw != 0;
    return action->value >= gpu->model.min_mw && action->value <= gpu->model.max_mw;
}

static int64_t most_of(uint32_t fault)
{
    switch (fault) {
    case WK_HANG:
        return WK_MOST_HANG_MS;
    case WK_SLOW:
        return WK_MOST_SLOW_US;
    case WK_OUT_OF_BAND:
        return WK_MOST_MW;
    default:
        return 0;
    }
}

static bool value_fits(const struct wk_action *action)
{
    switch (action->kind) {
    case WK_SET_LIMIT:
    case WK_SET_MODULE_LIMIT:
        return true; /* depends on the GPU */
    case WK_START_LOAD:
        return action->which < wk_profile_count && action->level_bp <= 10000 && action->value >= 0 &&
               action->value <= (int64_t)(WK_MOST_NS / 1000000);
    case WK_BREAK:
        return action->which < WK_FAULTS && action->value >= (action->which == WK_OUT_OF_BAND) &&
               action->value <= most_of(action->which);
    case WK_MEND:
        return action->which < WK_FAULTS || action->which == WK_ALL;
    case WK_RAISE_XID:
        return action->value > 0 && action->value <= 999;
    case WK_SET_PERSISTENCE:
    case WK_SET_LATENCY:
        return action->value == 0 || action->value == 1;
    default:
        return true;
    }
}

int wk_check_action(const struct wk_state *state, const struct wk_action *action)
{
    bool of_library = action->gpu == WK_LIBRARY && (action->kind == WK_BREAK || action->kind == WK_MEND);
    if (action->kind >= WK_KINDS || action->event >= WK_EVENTS)
        return EINVAL;
    if (!wk_is_sound_action(action))
        return ERANGE;
    if (action->gpu >= state->node.gpu_count && action->gpu != WK_ALL && !of_library)
        return ENODEV;
    if (!value_fits(action))
        return ERANGE;
    if (action->kind == WK_SET_LIMIT || action->kind == WK_SET_MODULE_LIMIT)
        for (unsigned minor = 0; minor < state->node.gpu_count; minor++)
            if ((action->gpu == WK_ALL || action->gpu == minor) && !limit_fits(&state->gpus[minor], action))
                return ERANGE;
    return 0;
}

static void set_fault(struct wk_faults *faults, uint32_t fault, bool on, uint32_t value)
{
    static const uint32_t answers[WK_FAULTS] = {
        [WK_LOST] = NVML_ERROR_GPU_IS_LOST,
        [WK_RESET_REQUIRED] = NVML_ERROR_RESET_REQUIRED,
        [WK_UNKNOWN] = NVML_ERROR_UNKNOWN,
        [WK_TIMEOUT] = NVML_ERROR_TIMEOUT,
        [WK_IRQ_ISSUE] = NVML_ERROR_IRQ_ISSUE,
        [WK_NO_DRIVER] = NVML_ERROR_DRIVER_NOT_LOADED,
        [WK_WRONG_DRIVER] = NVML_ERROR_LIB_RM_VERSION_MISMATCH,
        [WK_NO_PERMISSION] = NVML_ERROR_NO_PERMISSION,
        [WK_IN_USE] = NVML_ERROR_IN_USE,
    };
    switch (fault) {
    case WK_HANG:
        faults->hang = on;
        faults->hang_ms = on ? value : 0;
        break;
    case WK_SLOW:
        faults->slow_us = on ? value : 0;
        break;
    case WK_IGNORED:
        faults->set_ignored = on;
        break;
    case WK_OUT_OF_BAND:
        faults->oob_limit_mw = on ? value : 0;
        break;
    case WK_STUCK_COUNTER:
        faults->counter_sticks = on;
        break;
    case WK_NO_PERMISSION:
    case WK_IN_USE:
        if (on || faults->set_answer == answers[fault])
            faults->set_answer = on ? answers[fault] : 0;
        break;
    default:
        if (on || faults->answer == answers[fault])
            faults->answer = on ? answers[fault] : 0;
    }
}

static void mend(struct wk_faults *faults, uint32_t which)
{
    if (which == WK_ALL)
        *faults = (struct wk_faults){0};
    else
        set_fault(faults, which, false, 0);
}

/* The GPU's part of the driver begins anew: its limits at their defaults, its counters at 0. */
static void reset(struct wk_gpu *gpu, uint64_t now_ns)
{
    gpu->requested_mw = gpu->model.default_mw;
    gpu->module_mw = gpu->model.module_default_mw;
    gpu->counter_base_mj = gpu->energy_mj;
    gpu->counter_jump_mj = 0;
    gpu->faults.stuck_mj = 0;
    gpu->capped_base_ns = gpu->capped_ns;
    gpu->driver_loaded_ns = now_ns;
    if (gpu->faults.answer == NVML_ERROR_RESET_REQUIRED || gpu->faults.answer == NVML_ERROR_GPU_IS_LOST)
        gpu->faults.answer = 0;
}

static void reboot(struct wk_gpu *gpu, uint64_t now_ns)
{
    static const struct wk_load idle = {0};
    uint32_t oob_limit_mw = gpu->faults.oob_limit_mw;
    wk_start_load(gpu, now_ns, &idle, NULL);
    mend(&gpu->faults, WK_ALL);
    gpu->faults.oob_limit_mw = oob_limit_mw; /* a BMC keeps it */
    gpu->process_count = 0;
    gpu->xid_count = 0;
    reset(gpu, now_ns);
}

static void do_to_gpu(struct wk_gpu *gpu, const struct wk_action *action, uint64_t now_ns)
{
    wk_settle(gpu, now_ns);
    uint32_t acting_mw = wk_acting_mw(gpu, now_ns), enforced_mw = wk_enforced_mw(gpu);
    switch (action->kind) {
    case WK_SET_LIMIT:
        if (limit_fits(gpu, action))
            gpu->requested_mw = (uint32_t)action->value;
        break;
    case WK_SET_MODULE_LIMIT:
        if (limit_fits(gpu, action))
            gpu->module_mw = (uint32_t)action->value;
        break;
    case WK_START_LOAD:
        wk_start_profile(gpu, now_ns, action->which, action->level_bp, (uint64_t)action->value * UINT64_C(1000000));
        break;
    case WK_BREAK:
        if (action->which == WK_STUCK_COUNTER && !gpu->faults.counter_sticks)
            gpu->faults.stuck_mj = wk_counter_mj(gpu, now_ns);
        set_fault(&gpu->faults, action->which, true, (uint32_t)action->value);
        break;
    case WK_MEND:
        mend(&gpu->faults, action->which);
        break;
    case WK_JUMP_COUNTER:
        gpu->counter_jump_mj += action->value; /* both are bounded far from an overflow */
        if (gpu->counter_jump_mj > MOST_JUMP_MJ || gpu->counter_jump_mj < -MOST_JUMP_MJ)
            gpu->counter_jump_mj = gpu->counter_jump_mj < 0 ? -MOST_JUMP_MJ : MOST_JUMP_MJ;
        break;
    case WK_RAISE_XID:
        gpu->xids[gpu->xid_count++ % WK_XIDS] = (uint32_t)action->value;
        break;
    case WK_SET_PERSISTENCE:
        gpu->persistence = (uint32_t)action->value;
        break;
    case WK_REBOOT:
        reboot(gpu, now_ns);
        break;
    case WK_RESET_GPU:
    case WK_RELOAD_DRIVER:
        reset(gpu, now_ns);
        break;
    default:
        break;
    }
    if (wk_enforced_mw(gpu) != enforced_mw)
        wk_replan(gpu, now_ns, acting_mw);
}

static void do_to_node(struct wk_node *node, const struct wk_action *action, uint64_t now_ns)
{
    switch (action->kind) {
    case WK_BREAK:
        if (action->gpu == WK_LIBRARY)
            set_fault(&node->faults, action->which, true, (uint32_t)action->value);
        break;
    case WK_MEND:
        if (action->gpu == WK_LIBRARY)
            mend(&node->faults, action->which);
        break;
    case WK_REBOOT:
        mend(&node->faults, WK_ALL);
        /* fall through */
    case WK_RELOAD_DRIVER:
        node->driver_generation++;
        node->driver_loaded_ns = now_ns;
        break;
    case WK_SET_LATENCY:
        node->profile = (uint32_t)action->value;
        break;
    default:
        break;
    }
}

void wk_do(struct wk_node *node, struct wk_gpu *gpus, unsigned first, unsigned count, const struct wk_action *action,
           uint64_t now_ns)
{
    bool whole = action->kind == WK_RELOAD_DRIVER || action->kind == WK_REBOOT;
    if (!value_fits(action))
        return; /* planned by a damaged file */
    for (unsigned i = 0; i < count; i++)
        if (whole || action->gpu == WK_ALL || action->gpu == first + i)
            do_to_gpu(&gpus[i], action, now_ns);
    do_to_node(node, action, now_ns);
}

int wk_plan(struct wk_node *node, const struct wk_action *action)
{
    if (node->action_count >= WK_MAX_ACTIONS)
        return ENOSPC;
    unsigned place = node->action_count++;
    for (; place > 0 && node->actions[place - 1].at_ns > action->at_ns; place--)
        node->actions[place] = node->actions[place - 1];
    node->actions[place] = *action;
    return 0;
}

static void take_out(struct wk_node *node, unsigned place)
{
    node->action_count--;
    memmove(&node->actions[place], &node->actions[place + 1],
            (node->action_count - place) * sizeof node->actions[0]);
}

void wk_catch_up(struct wk_node *node, struct wk_gpu *gpus, unsigned first, unsigned count, uint64_t until_ns)
{
    for (unsigned done = 0; node->action_count > 0 && node->actions[0].at_ns <= until_ns; done++) {
        struct wk_action action = node->actions[0];
        uint64_t at_ns = action.at_ns, again = action.every_ns == 0 ? 0 : (until_ns - at_ns) / action.every_ns;
        bool skips = done >= MOST_DOINGS && again > 0;
        take_out(node, 0);
        action.at_ns += action.every_ns * (skips ? again : 1);
        if (action.every_ns != 0 && action.at_ns <= WK_MOST_NS)
            wk_plan(node, &action);
        if (!skips)
            wk_do(node, gpus, first, count, &action, at_ns);
    }
}

void wk_note_event(struct wk_node *node, enum wk_event event, unsigned gpu, uint64_t now_ns)
{
    struct wk_action due[WK_MAX_ACTIONS];
    unsigned due_count = 0;
    for (unsigned place = 0; place < node->action_count;) {
        struct wk_action *action = &node->actions[place];
        bool concerns = action->gpu == gpu || action->gpu == WK_ALL || action->gpu == WK_LIBRARY || gpu == WK_ALL;
        if (action->at_ns != WK_NEVER || action->event != event || !concerns) {
            place++;
        } else if (action->nth > 1) {
            action->nth--;
            place++;
        } else {
            due[due_count] = *action;
            due[due_count++].at_ns = now_ns + action->delay_ns;
            take_out(node, place);
        }
    }
    for (unsigned i = 0; i < due_count; i++)
        if (due[i].at_ns <= WK_MOST_NS)
            wk_plan(node, &due[i]);
}

void wk_adopt_boot(struct wk_node *node, struct wk_gpu *gpus, unsigned count)
{
    static const struct wk_action start = {.kind = WK_REBOOT, .gpu = WK_ALL};
    if (strncmp(node->boot_id, wk_boot_id(), WK_BOOT_ID_SIZE) == 0)
        return;
    snprintf(node->boot_id, sizeof node->boot_id, "%s", wk_boot_id());
    node->clock_mode = WK_CLOCK_REAL;
    node->offset_ns = 0;
    node->action_count = 0;
    for (unsigned i = 0; i < count; i++) {
        do_to_gpu(&gpus[i], &start, 0);
        wk_make_idle(&gpus[i], 0);
    }
    do_to_node(node, &start, 0);
}
