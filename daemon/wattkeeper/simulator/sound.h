/* Whether a state that was copied from a file can be worked with: a damaged one must not harm a client. */
#ifndef WK_SOUND_H
#define WK_SOUND_H

#include "state.h"

bool wk_is_sound_node(const struct wk_node *node);
bool wk_is_sound_gpu(const struct wk_gpu *gpu);
bool wk_is_sound_segment(const struct wk_segment *segment);

#endif
