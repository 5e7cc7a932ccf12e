/* Between NVML's functions and the state: initialisation, handles, faults and latency.
 *
 * Every NVML function of a device is bracketed by wk_enter and wk_leave. */
#ifndef WK_SESSION_H
#define WK_SESSION_H

#include <stdbool.h>

#include "nvml_header.h"
#include "state.h"

/* How long a call takes under the latency profile `driver`: reads 100 us, setting a limit 10 ms (real drivers:
 * 30-100 us, some calls 10-20 ms), nothing where the real library answers from memory. One lock for the node is
 * held meanwhile, as the driver has one. The time is slept, not spun away, for a client's CPU time is measured
 * too; the thread's timer slack is narrowed meanwhile, since the usual 50 us would be half as much again. */
enum wk_cost { WK_CACHED, WK_READ, WK_SET };

struct wk_call {
    struct wk_sim *sim;
    int driver_lock;
    uint64_t generation; /* of the driver, that the session belongs to */
    uint64_t now_ns;
    struct wk_node node; /* as it is now, or was after the latency */
    struct wk_gpu own;   /* likewise; `gpu` points to it */
    const struct wk_gpu *gpu;
    unsigned minor;
    unsigned index;
    unsigned instance; /* of MIG that the handle stands for; WK_ALL: the whole GPU */
};

/* UNINITIALIZED (never, or the driver was reloaded since), INVALID_ARGUMENT (an unknown handle, or not `valid`),
 * NOT_SUPPORTED (a MIG instance), what a fault says, UNKNOWN (the state file is damaged or gone) or SUCCESS. `valid`
 * is what the caller thinks of its other arguments. */
nvmlReturn_t wk_enter(struct wk_call *call, nvmlDevice_t device, enum wk_cost cost, bool valid);

/* The same where a handle of a MIG instance will do as well. */
nvmlReturn_t wk_enter_any(struct wk_call *call, nvmlDevice_t device, enum wk_cost cost, bool valid);

/* The same for functions of the whole node. `gpu` is not set. */
nvmlReturn_t wk_enter_node(struct wk_call *call, bool valid);

/* Ends a call, entered or refused, and hands `answer` through. */
nvmlReturn_t wk_leave(struct wk_call *call, nvmlReturn_t answer);

/* The handle of a minor number, or of one of its MIG instances (`instance` WK_ALL: the GPU itself). */
nvmlDevice_t wk_handle(unsigned minor, unsigned instance);

/* The session of this process and the driver that it belongs to, counted until wk_close; NULL: there is none. */
struct wk_sim *wk_hold_session(uint64_t *generation);

/* What a handle stands for; false for what is none. */
bool wk_find_device(nvmlDevice_t device, unsigned *minor, unsigned *instance);

/* Real time, whatever the simulated clock. Where a hang is waited out, it is looked for so often. */
#define HANG_POLL_NS 2000000
void wk_sleep(long nanoseconds);

/* Every event set of this process is free again: a session has ended. */
void wk_release_event_sets(void);

/* One GPU's state in a call of the whole node, whatever is wrong with that GPU. */
nvmlReturn_t wk_take_gpu(struct wk_call *call, unsigned minor);

/* Copies a text for a caller: INSUFFICIENT_SIZE where it does not fit. */
nvmlReturn_t wk_answer_text(char *out, unsigned int length, const char *text);

/* What the state's errno values are in NVML's terms. */
nvmlReturn_t wk_nvml_error(int error);

#endif
