/* What a simulated GPU draws: pure functions of its state and the time. Power in mW, time in ns. */
#ifndef WK_PHYSICS_H
#define WK_PHYSICS_H

#include <stdbool.h>
#include <stdint.h>

#include "state.h"

/* What the load would draw without a limit: idle + load * (peak - idle). */
uint32_t wk_natural_mw(const struct wk_gpu *gpu);

/* The limit that holds: the requested one, or an out-of-band one below it. */
uint32_t wk_enforced_mw(const struct wk_gpu *gpu);

/* What it draws: its natural power, held down to the enforced limit, but never below idle. */
uint32_t wk_power_mw(const struct wk_gpu *gpu);

/* Whether the limit holds it below its natural power. */
bool wk_capped(const struct wk_gpu *gpu);

/* Degrees Celsius: 30 at no power, 75 at peak power; without inertia. */
uint32_t wk_temperature_c(const struct wk_gpu *gpu);

/* MHz: the highest clock under load, lowered by the cube root of the share of its natural dynamic power that
 * the limit leaves it (dynamic power goes with f * V^2, and V about with f); a resting clock when idle. */
uint32_t wk_sm_clock_mhz(const struct wk_gpu *gpu);

/* Moves the anchor of every counter to `now_ns`. The counters read the same before and after: integer
 * arithmetic with the remainder kept, so energy is power * time exactly, over any number of changes. */
void wk_settle(struct wk_gpu *gpu, uint64_t now_ns);

/* The simulated time. Real: CLOCK_BOOTTIME plus the state's offset; manual: what the state says. */
uint64_t wk_now(const struct wk_state *state);

/* The machine has started at `now_ns`: as wk_load_driver, and no load, and of the faults only the out-of-band
 * limit is left, for a BMC keeps it. */
void wk_restart(struct wk_state *state, uint64_t now_ns);

/* Makes a state of an earlier boot one of this boot: the clock is real, without offset, and the machine started
 * at its 0. A pure function, so that readers who cannot write agree with writers. */
void wk_adopt_boot(struct wk_state *state);

/* The driver is loaded anew: limits at their defaults and counters at 0 from `now_ns` on. */
void wk_load_driver(struct wk_state *state, uint64_t now_ns);

/* This machine's boot id; empty where the kernel does not tell. */
const char *wk_boot_id(void);

#endif
