/* From the state to what people and tests see of it. */
#ifndef WK_VIEWS_H
#define WK_VIEWS_H

#include "controls.h"

void wk_view(const struct wk_state *state, uint64_t now_ns, struct wk_node_view *view);

#endif
