/* The loads that come with the simulator, by name. */
#ifndef WK_PROFILES_H
#define WK_PROFILES_H

#include <stddef.h>

#include "state.h"

extern const size_t wk_profile_count;

/* NULL beyond the last. */
const char *wk_profile_name(unsigned which);

/* Puts a load on a GPU. `level_bp` scales its power above idle; `goal_ns` is work to be done, 0: no end. */
void wk_start_profile(struct wk_gpu *gpu, uint64_t now_ns, unsigned which, uint32_t level_bp, uint64_t goal_ns);

#endif
