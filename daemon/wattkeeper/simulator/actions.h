/* Everything that can be done to simulated GPUs, now or later.
 *
 * What is planned waits in the state. Whoever looks next does all that was due, each thing as of its own time: a
 * reader in its own copy, a writer in the state. So it makes no difference who looks, or when. */
#ifndef WK_ACTIONS_H
#define WK_ACTIONS_H

#include "state.h"

/* Mirrored in library.py. The unit of `value` in brackets. */
enum wk_kind {
    WK_SET_LIMIT,        /* [mW] */
    WK_SET_MODULE_LIMIT, /* [mW] */
    WK_START_LOAD,       /* which: a profile of profiles.h; level_bp: how much of it; [ms of work, 0: no end] */
    WK_BREAK,            /* which: enum wk_fault; [what that fault takes] */
    WK_MEND,             /* which: enum wk_fault, or WK_ALL */
    WK_JUMP_COUNTER,     /* [mJ, may be negative] the energy counter jumps by so much */
    WK_RAISE_XID,        /* [the XID] */
    WK_SET_PERSISTENCE,  /* [0 or 1] */
    WK_RESET_GPU,        /* limit at default, counters at 0, a lost GPU is back */
    WK_RELOAD_DRIVER,    /* the same of every GPU, and every NVML session is stale */
    WK_REBOOT,           /* a reload; loads and faults are gone, but for out-of-band limits */
    WK_SET_LATENCY,      /* [enum wk_profile] */
    WK_KINDS,
};

enum wk_event {
    WK_NO_EVENT,
    WK_ON_SET_LIMIT, /* an NVML client that may sets a limit of the GPU, whatever comes of it */
    WK_ON_OPEN,      /* an NVML client that may write opens the library */
    WK_EVENTS,
};

enum wk_fault {
    WK_HANG,          /* [ms each call, 0: until mended] */
    WK_SLOW,          /* [us each call] */
    WK_LOST,
    WK_RESET_REQUIRED,
    WK_UNKNOWN,
    WK_TIMEOUT,
    WK_IRQ_ISSUE,
    WK_NO_DRIVER,     /* of the library: DRIVER_NOT_LOADED */
    WK_WRONG_DRIVER,  /* of the library: LIB_RM_VERSION_MISMATCH */
    WK_NO_PERMISSION, /* setters only */
    WK_IN_USE,        /* setters only */
    WK_IGNORED,       /* setters only: success, and nothing changes */
    WK_OUT_OF_BAND,   /* [mW] */
    WK_STUCK_COUNTER,
    WK_FAULTS,
};

/* `gpu` of a fault that concerns the library as a whole. */
#define WK_LIBRARY (UINT32_MAX - 1)

/* Whether an action makes sense for these GPUs: 0, ENODEV, ERANGE or EINVAL. */
int wk_check_action(const struct wk_state *state, const struct wk_action *action);

/* Does an action as of `now_ns`, on the node and on those of its GPUs that are at hand: `count` from minor number
 * `first` on. Without effect where it makes no sense. */
void wk_do(struct wk_node *node, struct wk_gpu *gpus, unsigned first, unsigned count, const struct wk_action *action,
           uint64_t now_ns);

/* Plans an action. ENOSPC: too many wait already. */
int wk_plan(struct wk_node *node, const struct wk_action *action);

/* Does what is due by `until_ns`, in the order of time. */
void wk_catch_up(struct wk_node *node, struct wk_gpu *gpus, unsigned first, unsigned count, uint64_t until_ns);

/* An event has happened: what waits for it becomes due. `gpu` WK_ALL: to all of them. */
void wk_note_event(struct wk_node *node, enum wk_event event, unsigned gpu, uint64_t now_ns);

/* Makes a state of an earlier boot one of this boot: the clock is real, without offset, the machine started at its
 * 0, and nothing is planned. */
void wk_adopt_boot(struct wk_node *node, struct wk_gpu *gpus, unsigned count);

#endif
