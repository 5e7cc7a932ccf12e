/* What a simulated GPU draws: pure functions of its state and the time. Power in mW, time in ns.
 *
 *   load -> natural power -> acting limit -> power -> clock -> throughput
 *
 * A load is a sequence of segments, each with a natural power and a share that waits for memory. The limit that
 * acts follows a new enforced limit in steps of 10 ms: down within 50 ms, up to 95 % within 0.5 s, as gridpilot
 * measured on V100s. Where natural power is above it, the GPU draws the limit (plus the model's overshoot) and
 * lowers its clock: dynamic power goes with f * V^2, V with f down to a floor; docs/simulator.md has the fit.
 *
 * All power here is as the card's sensors see it, for that is what its limiter goes by. What it truly draws
 * differs by the board's gain. */
#ifndef WK_PHYSICS_H
#define WK_PHYSICS_H

#include <stdbool.h>
#include <stdint.h>

#include "state.h"

/* What a GPU does at one instant. */
struct wk_instant {
    bool busy;
    bool capped; /* the limit holds it below its natural power */
    uint32_t natural_mw;
    uint32_t power_mw;
    uint32_t clock_mhz;
    uint32_t speed_ppm; /* of full speed */
    uint32_t use_percent;
    uint32_t memory_use_percent;
};

/* Sums since the GPU was made. Energy in pJ is below one mJ, work in ppm below one ns. */
struct wk_sums {
    uint64_t energy_mj, energy_pj;
    uint64_t capped_ns;
    uint64_t work_ns, work_ppm;
    double heat_mc; /* above ambient */
    bool without_heat; /* which costs as much as all the rest */
};

/* The limit that holds once it acts: the requested one, or one below it: an out-of-band one, or what the limit of
 * its module leaves it. */
uint32_t wk_enforced_mw(const struct wk_gpu *gpu);

void wk_look(const struct wk_gpu *gpu, uint64_t at_ns, struct wk_instant *instant);

/* The sums at a time not before the anchor. Any number of looks in between makes no difference: integer
 * arithmetic with remainders kept, so energy is power * time exactly. */
void wk_sum(const struct wk_gpu *gpu, uint64_t at_ns, struct wk_sums *sums);

/* The energy at any time since 1.1 s before the anchor, in mJ; between grid points of the past, in proportion. */
uint64_t wk_energy_at(const struct wk_gpu *gpu, uint64_t at_ns);

uint32_t wk_temperature_mc(const struct wk_gpu *gpu, uint64_t at_ns);

/* Moves the anchor to `now_ns`. */
void wk_settle(struct wk_gpu *gpu, uint64_t now_ns);

/* The parts of a change: settle first, then change limits or load, then replan. `acting_mw` is what
 * wk_acting_mw said before the change. */
uint32_t wk_acting_mw(const struct wk_gpu *gpu, uint64_t at_ns);
void wk_replan(struct wk_gpu *gpu, uint64_t now_ns, uint32_t acting_mw);

/* Puts a load on a GPU, or (count 0) takes it off. `segments` has load->count entries; start, end and progress are
 * set here. */
void wk_start_load(struct wk_gpu *gpu, uint64_t now_ns, const struct wk_load *load, const struct wk_segment *segments);

/* A GPU that has always been idle, at the model's default limit. Its model is set. */
void wk_make_idle(struct wk_gpu *gpu, uint64_t now_ns);

/* The simulated time. Real: CLOCK_BOOTTIME plus the state's offset; manual: what the state says. */
uint64_t wk_now(const struct wk_node *node);

/* This machine's boot id; empty where the kernel does not tell. */
const char *wk_boot_id(void);

#endif
