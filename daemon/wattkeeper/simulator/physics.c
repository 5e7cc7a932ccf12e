#include "physics.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define PJ_PER_MJ UINT64_C(1000000000)
#define PPM UINT64_C(1000000)
#define STEP_NS UINT64_C(10000000)
#define STEPS_DOWN 5u
#define STEPS_UP 52u
#define SPIKE_NS UINT64_C(50000000)
#define SPIKE_PERCENT 160u

typedef unsigned __int128 u128;

/* A stretch of time in which nothing changes. `segment` and `segment_end_ns` are a hint where to search for the next:
 * a trace has a thousand segments, and time goes on mostly. */
struct piece {
    uint64_t until_ns;
    bool busy;
    bool at_cycle_start; /* the load begins its sequence here, and nothing else will happen within it */
    uint32_t segment;
    uint32_t acting_mw;
    uint64_t segment_end_ns; /* since the sequence began; 0: no hint */
};

uint32_t wk_enforced_mw(const struct wk_gpu *gpu)
{
    uint32_t limit = gpu->requested_mw;
    if (gpu->module_mw != 0) {
        uint32_t companion = gpu->model.companion_mw;
        uint32_t left = gpu->module_mw > companion ? gpu->module_mw - companion : 0;
        limit = left < limit ? left : limit;
    }
    if (gpu->faults.oob_limit_mw != 0 && gpu->faults.oob_limit_mw < limit)
        limit = gpu->faults.oob_limit_mw;
    return limit;
}

static uint64_t segment_ns(const struct wk_gpu *gpu, uint32_t segment)
{
    return gpu->segments[segment].duration_us * UINT64_C(1000);
}

static uint64_t cycle_ns(const struct wk_gpu *gpu)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < gpu->load.count; i++)
        sum += segment_ns(gpu, i);
    return sum;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The steps from ramp_from_mw to what is enforced: how many, and how many are done. */
static uint32_t ramp_at(const struct wk_gpu *gpu, uint64_t at_ns, uint64_t *until_ns)
{
    uint32_t to = wk_enforced_mw(gpu), from = gpu->ramp_from_mw;
    uint64_t steps = to < from ? STEPS_DOWN : STEPS_UP;
    uint64_t done = at_ns < gpu->ramp_ns ? 1 : (at_ns - gpu->ramp_ns) / STEP_NS + 1;
    *until_ns = WK_NEVER;
    if (to == from || done >= steps)
        return to;
    *until_ns = gpu->ramp_ns + done * STEP_NS;
    return (uint32_t)((int64_t)from + ((int64_t)to - (int64_t)from) * (int64_t)done / (int64_t)steps);
}

uint32_t wk_acting_mw(const struct wk_gpu *gpu, uint64_t at_ns)
{
    uint64_t until_ns;
    return ramp_at(gpu, at_ns, &until_ns);
}

/* Which segment a time since the sequence began lies in. */
static void find_segment(const struct wk_gpu *gpu, uint64_t phase_ns, struct piece *piece)
{
    if (piece->segment_end_ns == 0 || phase_ns < piece->segment_end_ns - segment_ns(gpu, piece->segment)) {
        piece->segment = 0;
        piece->segment_end_ns = segment_ns(gpu, 0);
    }
    while (phase_ns >= piece->segment_end_ns && piece->segment + 1 < gpu->load.count)
        piece->segment_end_ns += segment_ns(gpu, ++piece->segment);
}

/* Which stretch a time lies in. `piece` is that of an earlier time, or all 0. */
static void find_piece(const struct wk_gpu *gpu, uint64_t cycle, uint64_t at_ns, struct piece *piece)
{
    const struct wk_load *load = &gpu->load;
    uint64_t ramp_until_ns;
    piece->until_ns = WK_NEVER;
    piece->at_cycle_start = false;
    piece->acting_mw = ramp_at(gpu, at_ns, &ramp_until_ns);
    piece->busy = load->count > 0 && at_ns >= load->start_ns && at_ns < load->end_ns;
    if (!piece->busy)
        return; /* idle power does not depend on the limit */
    uint64_t phase_ns = (at_ns - load->start_ns) % cycle;
    find_segment(gpu, phase_ns, piece);
    uint64_t ends_ns = at_ns - phase_ns + piece->segment_end_ns;
    uint64_t spike_until_ns = load->start_ns + SPIKE_NS;
    bool spikes = at_ns < spike_until_ns;
    piece->at_cycle_start = phase_ns == 0 && !spikes && ramp_until_ns == WK_NEVER;
    piece->until_ns = earlier(earlier(ends_ns, ramp_until_ns), load->end_ns);
    if (spikes) {
        piece->until_ns = earlier(piece->until_ns, spike_until_ns);
        piece->acting_mw = (uint32_t)((uint64_t)piece->acting_mw * SPIKE_PERCENT / 100);
    }
}

/* The share of its highest clock at which a GPU draws so much of its natural power. */
static double clock_share(const struct wk_model *model, uint32_t natural_mw, uint32_t power_mw)
{
    double lowest = (double)model->min_clock_mhz / model->sm_clock_mhz;
    double fixed = natural_mw > model->static_mw ? model->static_mw : model->idle_mw;
    double floor = model->voltage_floor_bp / 10000.0;
    double left = (power_mw - fixed) / (natural_mw - fixed);
    double share = left >= floor * floor * floor ? cbrt(left) : left / (floor * floor);
    return share < lowest ? lowest : share > 1 ? 1 : share;
}

static void look_into(const struct wk_gpu *gpu, const struct piece *piece, struct wk_instant *instant)
{
    const struct wk_model *model = &gpu->model;
    *instant = (struct wk_instant){
        .natural_mw = model->idle_mw, .power_mw = model->idle_mw, .clock_mhz = model->min_clock_mhz};
    if (!piece->busy)
        return;
    const struct wk_segment *segment = &gpu->segments[piece->segment];
    bool steady = gpu->load.count == 1;
    instant->busy = true;
    instant->natural_mw += (uint32_t)((uint64_t)(model->peak_mw - model->idle_mw) * segment->level_bp / 10000);
    instant->power_mw = instant->natural_mw;
    instant->clock_mhz = model->sm_clock_mhz;
    instant->speed_ppm = PPM;
    instant->use_percent = steady ? segment->level_bp / 100 : 100;
    instant->memory_use_percent = instant->use_percent * segment->memory_bp / 10000;
    if (instant->natural_mw <= piece->acting_mw || instant->natural_mw == model->idle_mw)
        return;
    uint64_t held_mw = piece->acting_mw + (uint64_t)piece->acting_mw * model->overshoot_bp / 10000;
    instant->capped = true;
    instant->power_mw = (uint32_t)earlier(instant->natural_mw, held_mw > model->idle_mw ? held_mw : model->idle_mw);
    double share = clock_share(model, instant->natural_mw, instant->power_mw);
    double waits = segment->memory_bp / 10000.0;
    instant->clock_mhz = (uint32_t)(model->sm_clock_mhz * share);
    instant->speed_ppm = (uint32_t)((double)PPM / ((1 - waits) / share + waits));
}

void wk_look(const struct wk_gpu *gpu, uint64_t at_ns, struct wk_instant *instant)
{
    struct piece piece = {0};
    find_piece(gpu, cycle_ns(gpu), at_ns, &piece);
    look_into(gpu, &piece, instant);
}

/* Adds to a sum that is held as a whole and a remainder. Most parts fit 64 bits, which divide much faster. */
static void add(uint64_t *whole, uint64_t *remainder, u128 part, uint64_t unit)
{
    part += *remainder;
    uint64_t low = (uint64_t)part;
    *whole += part == low ? low / unit : (uint64_t)(part / unit);
    *remainder = part == low ? low % unit : (uint64_t)(part % unit);
}

static void add_energy(struct wk_sums *sums, u128 picojoules)
{
    add(&sums->energy_mj, &sums->energy_pj, picojoules, PJ_PER_MJ);
}

static void add_work(struct wk_sums *sums, u128 ppm)
{
    add(&sums->work_ns, &sums->work_ppm, ppm, PPM);
}

static void add_piece(const struct wk_model *model, struct wk_sums *sums, const struct wk_instant *instant, uint64_t ns)
{
    add_energy(sums, (u128)instant->power_mw * ns);
    add_work(sums, (u128)instant->speed_ppm * ns);
    sums->capped_ns += instant->capped ? ns : 0;
    if (model->thermal_ms == 0 || sums->without_heat)
        return;
    double steady_mc = (double)instant->power_mw * model->resistance_uc / 1e6;
    sums->heat_mc = steady_mc + (sums->heat_mc - steady_mc) * exp(-(double)ns / (model->thermal_ms * 1e6));
}

/* `times` cycles at once, each of which adds `one` to sums that begin at 0. */
static void add_cycles(const struct wk_model *model, struct wk_sums *sums, const struct wk_sums *one, uint64_t cycle,
                       uint64_t times)
{
    add_energy(sums, ((u128)one->energy_mj * PJ_PER_MJ + one->energy_pj) * times);
    add_work(sums, ((u128)one->work_ns * PPM + one->work_ppm) * times);
    sums->capped_ns += one->capped_ns * times;
    if (model->thermal_ms == 0 || sums->without_heat)
        return;
    double kept = exp(-(double)cycle / (model->thermal_ms * 1e6));
    double kept_all = exp(-(double)cycle * (double)times / (model->thermal_ms * 1e6));
    sums->heat_mc = sums->heat_mc * kept_all + one->heat_mc * (1 - kept_all) / (1 - kept);
}

/* Sums over whole pieces from `from_ns` on: until `until_ns`, or until so much work is done, whichever is first.
 * Answers when. `goal_ns` 0: no end of work. */
static uint64_t run(const struct wk_gpu *gpu, struct wk_sums *sums, uint64_t from_ns, uint64_t until_ns,
                    uint64_t goal_ns)
{
    uint64_t cycle = cycle_ns(gpu), at_ns = from_ns;
    struct piece piece = {0};
    while (at_ns < until_ns) {
        struct wk_instant instant;
        find_piece(gpu, cycle, at_ns, &piece);
        uint64_t end_ns = earlier(until_ns, gpu->load.end_ns);
        if (piece.at_cycle_start && gpu->load.count > 1 && end_ns - at_ns > cycle) {
            struct wk_sums one = {.without_heat = sums->without_heat};
            run(gpu, &one, at_ns, at_ns + cycle, 0);
            uint64_t times = (end_ns - at_ns) / cycle;
            if (goal_ns != 0)
                times = earlier(times, one.work_ns > 0 ? (goal_ns - sums->work_ns) / (one.work_ns + 1) : times);
            if (times > 1) {
                add_cycles(&gpu->model, sums, &one, cycle, times);
                at_ns += times * cycle;
                continue;
            }
        }
        look_into(gpu, &piece, &instant);
        if (gpu->load.count == 1 && piece.at_cycle_start)
            piece.until_ns = gpu->load.end_ns; /* one segment over and over is one piece */
        uint64_t ns = earlier(piece.until_ns, until_ns) - at_ns;
        if (goal_ns != 0 && instant.speed_ppm != 0) {
            u128 missing = (u128)(goal_ns - sums->work_ns) * PPM - sums->work_ppm;
            u128 needs_ns = (missing + instant.speed_ppm - 1) / instant.speed_ppm;
            if (needs_ns <= ns)
                return at_ns + (uint64_t)needs_ns;
        }
        add_piece(&gpu->model, sums, &instant, ns);
        at_ns += ns;
    }
    return until_ns;
}

static void anchor(const struct wk_gpu *gpu, struct wk_sums *sums)
{
    *sums = (struct wk_sums){
        .energy_mj = gpu->energy_mj,
        .energy_pj = gpu->energy_pj,
        .capped_ns = gpu->capped_ns,
        .work_ns = gpu->work_ns,
        .work_ppm = gpu->work_ppm,
        .heat_mc = gpu->heat_mc,
    };
}

void wk_sum(const struct wk_gpu *gpu, uint64_t at_ns, struct wk_sums *sums)
{
    anchor(gpu, sums);
    run(gpu, sums, gpu->stamp_ns, at_ns, 0);
}

uint64_t wk_energy_at(const struct wk_gpu *gpu, uint64_t at_ns)
{
    if (at_ns >= gpu->stamp_ns) {
        struct wk_sums sums;
        anchor(gpu, &sums);
        sums.without_heat = true;
        run(gpu, &sums, gpu->stamp_ns, at_ns, 0);
        return sums.energy_mj;
    }
    uint64_t grid_ns = gpu->stamp_ns - gpu->stamp_ns % WK_GRID_NS;
    uint64_t before_mj, after_mj, from_ns, to_ns;
    if (at_ns >= grid_ns) {
        before_mj = gpu->past_mj[0];
        after_mj = gpu->energy_mj;
        from_ns = grid_ns;
        to_ns = gpu->stamp_ns;
    } else {
        uint64_t back = (grid_ns - at_ns + WK_GRID_NS - 1) / WK_GRID_NS;
        if (back >= WK_PAST)
            return gpu->past_mj[WK_PAST - 1];
        before_mj = gpu->past_mj[back];
        after_mj = gpu->past_mj[back - 1];
        from_ns = grid_ns - back * WK_GRID_NS;
        to_ns = from_ns + WK_GRID_NS;
    }
    if (after_mj < before_mj)
        return before_mj; /* only in a damaged file */
    return before_mj + (uint64_t)((u128)(after_mj - before_mj) * (at_ns - from_ns) / (to_ns - from_ns));
}

uint32_t wk_temperature_mc(const struct wk_gpu *gpu, uint64_t at_ns)
{
    struct wk_sums sums;
    wk_sum(gpu, at_ns, &sums);
    double heat_mc = sums.heat_mc < 0 ? 0 : sums.heat_mc > 1e6 ? 1e6 : sums.heat_mc;
    return gpu->model.ambient_mc + (uint32_t)heat_mc;
}

/* Moves the past along to a new anchor. The sums pass every grid point of the last second on their way. */
static void remember(struct wk_gpu *gpu, uint64_t now_ns, struct wk_sums *sums)
{
    uint64_t old_grid = gpu->stamp_ns / WK_GRID_NS, grid = now_ns / WK_GRID_NS;
    uint64_t shift = grid - old_grid;
    uint64_t at_ns = gpu->stamp_ns;
    if (shift < WK_PAST)
        memmove(gpu->past_mj + shift, gpu->past_mj, (WK_PAST - shift) * sizeof gpu->past_mj[0]);
    for (uint64_t back = shift < WK_PAST ? shift : WK_PAST; back-- > 0;) {
        uint64_t point_ns = (grid - back) * WK_GRID_NS;
        run(gpu, sums, at_ns, point_ns, 0);
        at_ns = point_ns;
        gpu->past_mj[back] = sums->energy_mj;
    }
    run(gpu, sums, at_ns, now_ns, 0);
}

void wk_settle(struct wk_gpu *gpu, uint64_t now_ns)
{
    if (now_ns <= gpu->stamp_ns)
        return;
    struct wk_sums sums;
    anchor(gpu, &sums);
    remember(gpu, now_ns, &sums);
    gpu->stamp_ns = now_ns;
    gpu->energy_mj = sums.energy_mj;
    gpu->energy_pj = sums.energy_pj;
    gpu->capped_ns = sums.capped_ns;
    gpu->work_ns = sums.work_ns;
    gpu->work_ppm = sums.work_ppm;
    gpu->heat_mc = (int32_t)sums.heat_mc;
}

/* When the load will be done, as things stand. */
static void plan_end(struct wk_gpu *gpu, uint64_t now_ns)
{
    struct wk_load *load = &gpu->load;
    if (load->count == 0 || now_ns >= load->end_ns)
        return;
    load->end_ns = load->once ? load->start_ns + cycle_ns(gpu) : WK_NEVER;
    if (load->goal_ns == 0)
        return;
    struct wk_sums sums;
    anchor(gpu, &sums);
    uint64_t horizon_ns = earlier(load->end_ns, now_ns + INT64_MAX / 4);
    uint64_t end_ns = gpu->work_ns >= load->goal_ns ? now_ns : run(gpu, &sums, now_ns, horizon_ns, load->goal_ns);
    load->end_ns = earlier(end_ns, load->end_ns);
}

void wk_replan(struct wk_gpu *gpu, uint64_t now_ns, uint32_t acting_mw)
{
    gpu->ramp_from_mw = acting_mw;
    gpu->ramp_ns = now_ns;
    plan_end(gpu, now_ns);
}

void wk_start_load(struct wk_gpu *gpu, uint64_t now_ns, const struct wk_load *load, const struct wk_segment *segments)
{
    wk_settle(gpu, now_ns);
    gpu->load = *load;
    gpu->load.start_ns = now_ns;
    gpu->load.end_ns = WK_NEVER;
    gpu->work_ns = gpu->work_ppm = 0;
    memset(gpu->segments, 0, sizeof gpu->segments);
    if (load->count > 0)
        memcpy(gpu->segments, segments, load->count * sizeof *segments);
    plan_end(gpu, now_ns);
}

void wk_make_idle(struct wk_gpu *gpu, uint64_t now_ns)
{
    const struct wk_model *model = &gpu->model;
    gpu->requested_mw = gpu->ramp_from_mw = model->default_mw;
    gpu->module_mw = model->module_default_mw;
    gpu->stamp_ns = gpu->ramp_ns = gpu->driver_loaded_ns = now_ns;
    gpu->load.end_ns = WK_NEVER;
    gpu->heat_mc = (int32_t)((uint64_t)model->idle_mw * model->resistance_uc / PPM);
    uint64_t second_mj = 2 * (uint64_t)model->idle_mw; /* of it the last second is remembered */
    gpu->energy_mj = gpu->counter_base_mj = second_mj;
    uint64_t since_ns = now_ns % WK_GRID_NS;
    for (uint64_t back = 0; back < WK_PAST; back++, since_ns += WK_GRID_NS)
        gpu->past_mj[back] = second_mj - (uint64_t)((u128)model->idle_mw * since_ns / PJ_PER_MJ);
}

uint64_t wk_now(const struct wk_node *node)
{
    if (node->clock_mode == WK_CLOCK_MANUAL)
        return node->manual_ns;
    struct timespec time;
    clock_gettime(CLOCK_BOOTTIME, &time);
    int64_t now_ns = (int64_t)time.tv_sec * 1000000000 + time.tv_nsec + node->offset_ns;
    return now_ns < 0 ? 0 : (uint64_t)now_ns;
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
