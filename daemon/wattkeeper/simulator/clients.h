/* Who uses NVML at the moment, and what they do. */
#ifndef WK_CLIENTS_H
#define WK_CLIENTS_H

#include "actions.h"
#include "state.h"

/* Called under the session's mutex, when this process opens its session and when it closes it. */
void wk_become_client(struct wk_sim *sim, const struct wk_node *node);
void wk_leave_as_client(struct wk_sim *sim);

/* Tells the state that an event has happened, where something waits for it and this client may write. */
void wk_tell_event(struct wk_sim *sim, enum wk_event event, unsigned minor);

#endif
