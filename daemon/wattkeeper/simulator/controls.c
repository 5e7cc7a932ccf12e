#include "controls.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "physics.h"
#include "profiles.h"
#include "sound.h"
#include "views.h"

unsigned wk_sim_size(unsigned n)
{
    static const unsigned sizes[] = {sizeof(struct wk_node_view), sizeof(struct wk_gpu_spec),
                                     sizeof(struct wk_node_spec), sizeof(struct wk_action),
                                     sizeof(struct wk_load),      sizeof(struct wk_segment)};
    return n < sizeof sizes / sizeof sizes[0] ? sizes[n] : 0;
}

const char *wk_sim_profile_name(unsigned n)
{
    return wk_profile_name(n);
}

/* FNV-1a with the finaliser of splitmix64, so that the last character too moves every bit. Nothing depends on it
 * being hard to invert. */
static uint64_t hash(const char *seed, unsigned number, char salt)
{
    uint64_t value = UINT64_C(0xcbf29ce484222325);
    char text[16];
    snprintf(text, sizeof text, "/%u%c", number, salt);
    const char *parts[] = {seed, text};
    for (size_t part = 0; part < 2; part++)
        for (const char *c = parts[part]; *c != '\0'; c++)
            value = (value ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
    value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
    return value ^ value >> 31;
}

static void make_uuid(char *out, const char *prefix, const char *seed, unsigned number)
{
    uint64_t high = hash(seed, number, 'a');
    uint64_t low = hash(seed, number, 'b');
    snprintf(out, WK_UUID_SIZE, "%s-%08x-%04x-%04x-%04x-%012llx", prefix, (unsigned)(high >> 32),
             (unsigned)(high >> 16 & 0xffff), (unsigned)(high & 0xffff), (unsigned)(low >> 48),
             (unsigned long long)(low & UINT64_C(0xffffffffffff)));
}

static int make_gpu(struct wk_gpu *gpu, const struct wk_gpu_spec *spec, const char *seed, unsigned minor,
                    uint64_t now_ns)
{
    uint32_t limit_mw = spec->limit_mw;
    if (limit_mw != 0 && (limit_mw < spec->model.min_mw || limit_mw > spec->model.max_mw))
        return ERANGE;
    gpu->model = spec->model;
    gpu->gain_ppm = spec->gain_ppm;
    gpu->persistence = 1;
    gpu->pci_bus = 0x10 + 8 * minor;
    make_uuid(gpu->uuid, "GPU", seed, minor);
    snprintf(gpu->serial, sizeof gpu->serial, "165%010llu",
             (unsigned long long)(hash(seed, minor, 'b') % UINT64_C(10000000000)));
    wk_make_idle(gpu, now_ns);
    if (limit_mw != 0)
        gpu->requested_mw = limit_mw;
    gpu->ramp_from_mw = wk_enforced_mw(gpu);
    return wk_is_sound_gpu(gpu) ? 0 : EINVAL;
}

int wk_sim_create(const char *folder, const struct wk_node_spec *spec, const struct wk_gpu_spec *gpus, unsigned count,
                  const uint32_t *order, const char *seed)
{
    if (count > WK_MAX_GPUS)
        return EINVAL;
    struct wk_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return ENOMEM;
    struct wk_node *node = &state->node;
    node->profile = spec->profile;
    node->clock_mode = spec->manual_clock ? WK_CLOCK_MANUAL : WK_CLOCK_REAL;
    node->gpu_count = count;
    node->driver_generation = 1;
    node->driver_loaded_ns = wk_now(node);
    snprintf(node->boot_id, sizeof node->boot_id, "%s", wk_boot_id());
    memcpy(node->driver_version, spec->driver_version, sizeof node->driver_version);
    int error = 0;
    for (unsigned i = 0; i < count; i++) {
        node->order[i] = order == NULL ? i : order[i];
        if (error == 0)
            error = make_gpu(&state->gpus[i], &gpus[i], seed, i, node->driver_loaded_ns);
        state->gpus[i].ideal_sensors = spec->ideal_sensors;
    }
    if (error == 0 && !wk_is_sound_node(node))
        error = EINVAL;
    if (error == 0)
        error = wk_create(folder, state, spec->replace);
    free(state);
    return error;
}

int wk_sim_open(const char *folder, struct wk_sim **sim)
{
    return wk_open(folder, sim);
}

void wk_sim_close(struct wk_sim *sim)
{
    wk_close(sim);
}

int wk_sim_read(const struct wk_sim *sim, struct wk_node_view *view)
{
    struct wk_state *state = calloc(1, sizeof *state);
    uint64_t now_ns;
    if (state == NULL)
        return ENOMEM;
    int error = wk_read_all(sim, state, &now_ns);
    if (error == 0) {
        wk_view(state, now_ns, view);
        view->writable = sim->writable;
    }
    free(state);
    return error;
}

/* Ends a change: committed where nothing was wrong with it. */
static int finish(struct wk_change *change, int error)
{
    if (error != 0)
        wk_abandon(change);
    else
        wk_commit(change);
    return error;
}

static int begin_gpu(struct wk_sim *sim, struct wk_change *change, unsigned minor, struct wk_gpu **gpu)
{
    int error = wk_begin(sim, change);
    if (error != 0)
        return error;
    if (minor >= change->state->node.gpu_count)
        return finish(change, ENODEV);
    *gpu = &change->state->gpus[minor];
    return 0;
}

int wk_sim_act(struct wk_sim *sim, const struct wk_action *action)
{
    struct wk_change change;
    int error = wk_begin(sim, &change);
    if (error != 0)
        return error;
    struct wk_node *node = &change.state->node;
    struct wk_action planned = *action;
    if (planned.event != WK_NO_EVENT)
        planned.at_ns = WK_NEVER;
    else if (planned.at_ns < change.now_ns)
        planned.at_ns = change.now_ns;
    error = wk_check_action(change.state, &planned);
    bool at_once = planned.at_ns <= change.now_ns && planned.every_ns == 0;
    if (error == 0 && at_once)
        wk_do(node, change.state->gpus, 0, node->gpu_count, &planned, change.now_ns);
    else if (error == 0)
        error = wk_plan(node, &planned);
    if (error == 0)
        wk_catch_up(node, change.state->gpus, 0, node->gpu_count, change.now_ns);
    return finish(&change, error);
}

int wk_sim_forget_plans(struct wk_sim *sim)
{
    struct wk_change change;
    int error = wk_begin(sim, &change);
    if (error != 0)
        return error;
    change.state->node.action_count = 0;
    return finish(&change, 0);
}

int wk_sim_set_load(struct wk_sim *sim, unsigned minor, const struct wk_load *load, const struct wk_segment *segments)
{
    struct wk_change change;
    struct wk_gpu *gpu;
    if (load->count > WK_MAX_SEGMENTS)
        return ENOSPC;
    for (uint32_t i = 0; i < load->count; i++)
        if (!wk_is_sound_segment(&segments[i]))
            return ERANGE;
    int error = begin_gpu(sim, &change, minor, &gpu);
    if (error != 0)
        return error;
    wk_start_load(gpu, change.now_ns, load, segments);
    return finish(&change, wk_is_sound_gpu(gpu) ? 0 : ERANGE);
}

int wk_sim_set_processes(struct wk_sim *sim, unsigned minor, const struct wk_process *processes, unsigned count)
{
    struct wk_change change;
    struct wk_gpu *gpu;
    if (count > WK_MAX_PROCESSES)
        return ENOSPC;
    int error = begin_gpu(sim, &change, minor, &gpu);
    if (error != 0)
        return error;
    memcpy(gpu->processes, processes, count * sizeof *processes);
    gpu->process_count = count;
    return finish(&change, wk_is_sound_gpu(gpu) ? 0 : ERANGE);
}

int wk_sim_set_instances(struct wk_sim *sim, unsigned minor, const struct wk_instance *instances, unsigned count)
{
    struct wk_change change;
    struct wk_gpu *gpu;
    if (count > WK_MAX_INSTANCES)
        return ERANGE;
    int error = begin_gpu(sim, &change, minor, &gpu);
    if (error != 0)
        return error;
    if (gpu->model.mig_slices == 0)
        return finish(&change, ENOTSUP);
    uint64_t slices = 0, memory_mib = 0;
    gpu->mig = count > 0;
    gpu->instance_count = count;
    gpu->process_count = 0;
    for (unsigned i = 0; i < count; i++) {
        gpu->instances[i] = instances[i];
        make_uuid(gpu->instances[i].uuid, "MIG", gpu->uuid, i);
        slices += instances[i].slices;
        memory_mib += instances[i].memory_mib;
    }
    return finish(&change, slices > gpu->model.mig_slices || memory_mib > gpu->model.memory_mib ? ERANGE : 0);
}

int wk_sim_set_boot_id(struct wk_sim *sim, const char *boot_id)
{
    struct wk_change change;
    int error = wk_begin(sim, &change);
    if (error != 0)
        return error;
    snprintf(change.state->node.boot_id, sizeof change.state->node.boot_id, "%s", boot_id);
    return finish(&change, wk_is_sound_node(&change.state->node) ? 0 : EINVAL);
}

int wk_sim_set_clock_mode(struct wk_sim *sim, uint32_t mode)
{
    struct wk_change change;
    int error = wk_begin(sim, &change);
    if (error != 0)
        return error;
    if (mode > WK_CLOCK_MANUAL)
        return finish(&change, ERANGE);
    struct wk_node *node = &change.state->node;
    node->manual_ns = change.now_ns;
    node->clock_mode = WK_CLOCK_REAL;
    node->offset_ns += (int64_t)(change.now_ns - wk_now(node));
    node->clock_mode = mode;
    return finish(&change, 0);
}

int wk_sim_advance(struct wk_sim *sim, uint64_t nanoseconds)
{
    struct wk_change change;
    int error = wk_begin(sim, &change);
    if (error != 0)
        return error;
    if (nanoseconds > WK_MOST_NS || change.now_ns + nanoseconds > WK_MOST_NS)
        return finish(&change, ERANGE);
    struct wk_node *node = &change.state->node;
    node->manual_ns += nanoseconds;
    node->offset_ns += (int64_t)nanoseconds;
    wk_catch_up(node, change.state->gpus, 0, node->gpu_count, wk_now(node));
    return finish(&change, 0);
}
