#include "controls.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "physics.h"

unsigned wk_sim_view_size(void)
{
    return sizeof(struct wk_node_view);
}

const char *wk_sim_model_key(unsigned n)
{
    return n < wk_model_count ? wk_models[n].key : NULL;
}

/* FNV-1a with the finaliser of splitmix64, so that the last character too moves every bit. Nothing depends on it
 * being hard to invert. */
static uint64_t hash(const char *seed, unsigned minor, char salt)
{
    uint64_t value = UINT64_C(0xcbf29ce484222325);
    char text[16];
    snprintf(text, sizeof text, "/%u%c", minor, salt);
    const char *parts[] = {seed, text};
    for (size_t part = 0; part < 2; part++)
        for (const char *c = parts[part]; *c != '\0'; c++)
            value = (value ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
    value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
    return value ^ value >> 31;
}

static void identify(struct wk_gpu *gpu, const char *seed, unsigned minor)
{
    uint64_t high = hash(seed, minor, 'a');
    uint64_t low = hash(seed, minor, 'b');
    snprintf(gpu->uuid, sizeof gpu->uuid, "GPU-%08x-%04x-%04x-%04x-%012llx", (unsigned)(high >> 32),
             (unsigned)(high >> 16 & 0xffff), (unsigned)(high & 0xffff), (unsigned)(low >> 48),
             (unsigned long long)(low & UINT64_C(0xffffffffffff)));
    snprintf(gpu->serial, sizeof gpu->serial, "165%010llu", (unsigned long long)(low % UINT64_C(10000000000)));
    gpu->pci_bus = 0x10 + 8 * minor;
}

int wk_sim_create(const char *folder, const char *key, unsigned count, const uint32_t *order, const char *seed,
                  uint32_t limit_mw, uint32_t profile, bool replace)
{
    const struct wk_model *model = wk_find_model(key);
    if (model == NULL)
        return ENODEV;
    if (count > WK_MAX_GPUS || profile > WK_PROFILE_DRIVER)
        return EINVAL;
    if (limit_mw != 0 && (limit_mw < model->min_mw || limit_mw > model->max_mw))
        return ERANGE;
    struct wk_state state = {.profile = profile, .gpu_count = count};
    snprintf(state.boot_id, sizeof state.boot_id, "%s", wk_boot_id());
    unsigned seen = 0;
    for (unsigned i = 0; i < count; i++) {
        state.order[i] = order == NULL ? i : order[i];
        if (state.order[i] >= count || (seen & 1u << state.order[i]) != 0)
            return EINVAL;
        seen |= 1u << state.order[i];
        state.gpus[i].model = *model;
        identify(&state.gpus[i], seed, i);
    }
    wk_load_driver(&state, wk_now(&state));
    for (unsigned i = 0; i < count && limit_mw != 0; i++)
        state.gpus[i].requested_mw = limit_mw;
    return wk_create(folder, &state, replace);
}

int wk_sim_open(const char *folder, struct wk_sim **sim)
{
    return wk_open(folder, sim);
}

void wk_sim_close(struct wk_sim *sim)
{
    wk_close(sim);
}

static void view_gpu(const struct wk_state *state, unsigned minor, struct wk_gpu_view *view)
{
    const struct wk_gpu *gpu = &state->gpus[minor];
    *view = (struct wk_gpu_view){
        .minor = minor,
        .pci_bus = gpu->pci_bus,
        .min_mw = gpu->model.min_mw,
        .default_mw = gpu->model.default_mw,
        .max_mw = gpu->model.max_mw,
        .requested_mw = gpu->requested_mw,
        .enforced_mw = wk_enforced_mw(gpu),
        .natural_mw = wk_natural_mw(gpu),
        .power_mw = wk_power_mw(gpu),
        .temperature_c = wk_temperature_c(gpu),
        .load_bp = gpu->load_bp,
        .oob_limit_mw = gpu->oob_limit_mw,
        .hang = gpu->hang,
        .hang_ms = gpu->hang_ms,
        .lost = gpu->lost,
        .set_ignored = gpu->set_ignored,
        .set_refused = gpu->set_refused,
        .energy_mj = gpu->energy_mj,
        .capped_ns = gpu->capped_ns,
    };
    memcpy(view->uuid, gpu->uuid, sizeof view->uuid);
    memcpy(view->name, gpu->model.name, sizeof view->name);
    memcpy(view->model, gpu->model.key, sizeof view->model);
    for (unsigned index = 0; index < state->gpu_count; index++)
        if (state->order[index] == minor)
            view->index = index;
}

int wk_sim_read(const struct wk_sim *sim, struct wk_node_view *view)
{
    struct wk_state state;
    uint64_t now_ns;
    int error = wk_read(sim, &state, &now_ns);
    if (error != 0)
        return error;
    *view = (struct wk_node_view){
        .clock_mode = state.clock_mode,
        .profile = state.profile,
        .gpu_count = state.gpu_count,
        .writable = sim->writable,
        .now_ns = now_ns,
        .driver_generation = state.driver_generation,
        .driver_loaded_ns = state.driver_loaded_ns,
    };
    memcpy(view->boot_id, state.boot_id, sizeof view->boot_id);
    for (unsigned minor = 0; minor < state.gpu_count; minor++) {
        wk_settle(&state.gpus[minor], now_ns);
        view_gpu(&state, minor, &view->gpus[minor]);
    }
    return 0;
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
    if (minor >= change->state.gpu_count)
        return finish(change, ENODEV);
    *gpu = &change->state.gpus[minor];
    return 0;
}

int wk_sim_set_limit(struct wk_sim *sim, unsigned minor, uint32_t limit_mw)
{
    struct wk_change change;
    struct wk_gpu *gpu;
    int error = begin_gpu(sim, &change, minor, &gpu);
    if (error != 0)
        return error;
    if (limit_mw < gpu->model.min_mw || limit_mw > gpu->model.max_mw)
        return finish(&change, ERANGE);
    gpu->requested_mw = limit_mw;
    return finish(&change, 0);
}

int wk_sim_set_load(struct wk_sim *sim, unsigned minor, uint32_t load_bp)
{
    struct wk_change change;
    struct wk_gpu *gpu;
    int error = begin_gpu(sim, &change, minor, &gpu);
    if (error != 0)
        return error;
    if (load_bp > 10000)
        return finish(&change, ERANGE);
    gpu->load_bp = load_bp;
    return finish(&change, 0);
}

static int alter_fault(struct wk_gpu *gpu, const char *kind, uint32_t on, uint32_t value)
{
    if (strcmp(kind, "hang") == 0) {
        gpu->hang = on;
        gpu->hang_ms = on ? value : 0;
    } else if (strcmp(kind, "lost") == 0)
        gpu->lost = on;
    else if (strcmp(kind, "ignored") == 0)
        gpu->set_ignored = on;
    else if (strcmp(kind, "no-permission") == 0)
        gpu->set_refused = on;
    else if (strcmp(kind, "oob") == 0) {
        if (on && value == 0)
            return ERANGE;
        gpu->oob_limit_mw = on ? value : 0;
    } else
        return EINVAL;
    return 0;
}

int wk_sim_set_fault(struct wk_sim *sim, unsigned minor, const char *kind, uint32_t value)
{
    struct wk_change change;
    struct wk_gpu *gpu;
    int error = begin_gpu(sim, &change, minor, &gpu);
    return error != 0 ? error : finish(&change, alter_fault(gpu, kind, 1, value));
}

int wk_sim_clear_fault(struct wk_sim *sim, unsigned minor, const char *kind)
{
    struct wk_change change;
    struct wk_gpu *gpu;
    int error = begin_gpu(sim, &change, minor, &gpu);
    if (error != 0)
        return error;
    if (kind != NULL)
        return finish(&change, alter_fault(gpu, kind, 0, 0));
    gpu->hang = gpu->hang_ms = gpu->lost = gpu->set_ignored = gpu->set_refused = gpu->oob_limit_mw = 0;
    return finish(&change, 0);
}

int wk_sim_set_profile(struct wk_sim *sim, uint32_t profile)
{
    struct wk_change change;
    int error = wk_begin(sim, &change);
    if (error != 0)
        return error;
    change.state.profile = profile;
    return finish(&change, profile > WK_PROFILE_DRIVER ? ERANGE : 0);
}

int wk_sim_reload_driver(struct wk_sim *sim)
{
    struct wk_change change;
    int error = wk_begin(sim, &change);
    if (error != 0)
        return error;
    wk_load_driver(&change.state, change.now_ns);
    return finish(&change, 0);
}

int wk_sim_reboot(struct wk_sim *sim)
{
    struct wk_change change;
    int error = wk_begin(sim, &change);
    if (error != 0)
        return error;
    wk_restart(&change.state, change.now_ns);
    return finish(&change, 0);
}

int wk_sim_set_boot_id(struct wk_sim *sim, const char *boot_id)
{
    struct wk_change change;
    int error = wk_begin(sim, &change);
    if (error != 0)
        return error;
    snprintf(change.state.boot_id, sizeof change.state.boot_id, "%s", boot_id);
    return finish(&change, 0);
}

int wk_sim_set_clock_mode(struct wk_sim *sim, uint32_t mode)
{
    struct wk_change change;
    int error = wk_begin(sim, &change);
    if (error != 0)
        return error;
    if (mode > WK_CLOCK_MANUAL)
        return finish(&change, ERANGE);
    change.state.manual_ns = change.now_ns;
    change.state.clock_mode = WK_CLOCK_REAL;
    change.state.offset_ns += (int64_t)(change.now_ns - wk_now(&change.state));
    change.state.clock_mode = mode;
    return finish(&change, 0);
}

int wk_sim_advance(struct wk_sim *sim, uint64_t nanoseconds)
{
    struct wk_change change;
    int error = wk_begin(sim, &change);
    if (error != 0)
        return error;
    if (nanoseconds > INT64_MAX / 2)
        return finish(&change, ERANGE);
    change.state.manual_ns += nanoseconds;
    change.state.offset_ns += (int64_t)nanoseconds;
    return finish(&change, 0);
}
