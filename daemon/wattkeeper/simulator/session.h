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
    struct wk_state state; /* as it is now, or was after the latency */
    uint64_t now_ns;
    const struct wk_gpu *gpu; /* in `state`, with its counters settled at now_ns */
    unsigned minor;
    unsigned index;
};

/* UNINITIALIZED, INVALID_ARGUMENT (an unknown handle, or not `valid`), GPU_IS_LOST, UNKNOWN (the state file
 * is damaged or gone) or SUCCESS. `valid` is what the caller thinks of its other arguments. */
nvmlReturn_t wk_enter(struct wk_call *call, nvmlDevice_t device, enum wk_cost cost, bool valid);

/* The same for functions of the whole node. */
nvmlReturn_t wk_enter_node(struct wk_call *call, bool valid);

/* Ends a call, entered or refused, and hands `answer` through. */
nvmlReturn_t wk_leave(struct wk_call *call, nvmlReturn_t answer);

/* The handle of a minor number. */
nvmlDevice_t wk_handle(unsigned minor);

/* Copies a text for a caller: INSUFFICIENT_SIZE where it does not fit. */
nvmlReturn_t wk_answer_text(char *out, unsigned int length, const char *text);

/* What the state's errno values are in NVML's terms. */
nvmlReturn_t wk_nvml_error(int error);

#endif
