/* Whether a state that was copied from a file can be worked with: a damaged one must not harm a client. */
#ifndef WK_SOUND_H
#define WK_SOUND_H

#include "state.h"

/* No stamp, and no time that is planned, lies beyond. Sums of two stay far from overflowing. */
#define WK_MOST_NS (UINT64_MAX / 8)

/* What a planned action may hold, whatever its kind. */
bool wk_is_sound_action(const struct wk_action *action);

#define WK_MOST_MW 100000000u /* 100 kW */

/* What a fault may make a call wait; a client that met more would seem dead for ever. */
#define WK_MOST_HANG_MS 86400000u
#define WK_MOST_SLOW_US 3600000000u

bool wk_is_sound_faults(const struct wk_faults *faults);
bool wk_is_sound_node(const struct wk_node *node);
bool wk_is_sound_gpu(const struct wk_gpu *gpu);
bool wk_is_sound_segment(const struct wk_segment *segment);

#endif
