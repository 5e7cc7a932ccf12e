#include "clients.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/file.h>

#include "session.h"

#define WAKING_NS 1000000000 /* the least that opening a GPU without persistence mode was seen to take: 1 to 3 s */

static int client = -1; /* the shared lock that this process holds for as long as it is a client */

/* Whoever comes while nobody is there, or leaves as the last, finds the driver without clients: what it kept for
 * GPUs without persistence mode is lost then. The lock is what tells, for it is gone with a client that was killed. */
static bool forget_unless_persistent(struct wk_sim *sim)
{
    struct wk_change change;
    struct wk_node node;
    struct wk_gpu gpu;
    uint64_t now_ns;
    bool forgets = false;
    for (unsigned minor = 0; wk_read(sim, minor, &node, &gpu, &now_ns) == 0; minor++)
        forgets = forgets || !gpu.persistence;
    if (!forgets || wk_begin(sim, &change) != 0)
        return forgets;
    for (unsigned minor = 0; minor < change.state->node.gpu_count; minor++) {
        const struct wk_action reset = {.kind = WK_RESET_GPU, .gpu = minor};
        if (!change.state->gpus[minor].persistence)
            wk_do(&change.state->node, change.state->gpus, 0, change.state->node.gpu_count, &reset, change.now_ns);
    }
    wk_commit(&change);
    return true;
}

static bool is_alone(int lock)
{
    return lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) == 0;
}

void wk_become_client(struct wk_sim *sim, const struct wk_node *node)
{
    client = open(sim->client_lock, O_RDONLY | O_CLOEXEC);
    if (is_alone(client) && forget_unless_persistent(sim) && node->profile == WK_PROFILE_DRIVER)
        wk_sleep(WAKING_NS);
    while (client >= 0 && flock(client, LOCK_SH) != 0 && errno == EINTR)
        continue;
}

void wk_leave_as_client(struct wk_sim *sim)
{
    if (is_alone(client))
        forget_unless_persistent(sim);
    if (client >= 0)
        wk_unlock(client);
    client = -1;
}

void wk_tell_event(struct wk_sim *sim, enum wk_event event, unsigned minor)
{
    struct wk_node node;
    uint64_t now_ns;
    bool awaited = false;
    if (!sim->writable || wk_read(sim, 0, &node, NULL, &now_ns) != 0)
        return;
    for (unsigned i = 0; i < node.action_count; i++)
        awaited = awaited || node.actions[i].event == event;
    struct wk_change change;
    if (!awaited || wk_begin(sim, &change) != 0)
        return;
    wk_note_event(&change.state->node, event, minor, change.now_ns);
    wk_catch_up(&change.state->node, change.state->gpus, 0, change.state->node.gpu_count, change.now_ns);
    wk_commit(&change);
}
