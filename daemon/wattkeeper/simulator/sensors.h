/* What a card tells of itself, which is not what it does: sensors update now and then, average over a window, and
 * look at part of the time only. The truth is in physics.h. */
#ifndef WK_SENSORS_H
#define WK_SENSORS_H

#include "state.h"

/* The mean power over the window that ended with the last update. A window of 0 is the instant itself. */
uint32_t wk_sensed_mw(const struct wk_gpu *gpu, uint64_t now_ns, uint32_t window_ms);

/* The energy counter: since the driver was loaded, as of its last update; the whole module's where there is one. */
uint64_t wk_counter_mj(const struct wk_gpu *gpu, uint64_t now_ns);

/* For how long the limit has held the GPU back since the driver was loaded. */
uint64_t wk_counted_capped_ns(const struct wk_gpu *gpu, uint64_t now_ns);

#endif
