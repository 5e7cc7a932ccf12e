/* The shared state of one simulated node: a file that every process maps.
 *
 * There is no simulator process. What a GPU draws, has drawn and will draw is a pure function of the last change
 * and of the time since (physics.h); what is planned for later waits in the state and is done by whoever looks
 * next, as of its own time (actions.h). So only changes are written: a limit, a load, a fault, a step of the clock.
 *
 * The file holds the state twice. A writer takes the file's exclusive flock, makes `sequence` odd, writes the
 * slot that nobody reads and publishes it by the next even number. A writer that is killed half-way has spoilt
 * only the unread slot, and the kernel drops its lock. Readers need no write access: they copy the published
 * slot and look whether `sequence` stood still, and take the flock (shared) only where it does not.
 *
 * Why flock and not a robust mutex in the mapping: the kernel keeps it outside of the file, so a damaged file
 * cannot hang or abort a client inside of the C library, and it works on a file open for reading only.
 *
 * All functions answer 0 or an errno: EBADMSG is "not a state file of this version, or a damaged one", ESTALE
 * "replaced since it was opened", EACCES "open for reading only". */
#ifndef WK_STATE_H
#define WK_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "models.h"

#define WK_MAGIC UINT64_C(0x6d69732d6b747477) /* "wttk-sim" */
#define WK_VERSION 2u
#define WK_MAX_GPUS 16u
#define WK_MAX_SEGMENTS 1024u
#define WK_MAX_PROCESSES 8u
#define WK_MAX_INSTANCES 7u
#define WK_MAX_ACTIONS 64u
#define WK_XIDS 8u
#define WK_UUID_SIZE 48
#define WK_BOOT_ID_SIZE 40
#define WK_VERSION_SIZE 24
#define WK_PROFILE_SIZE 24
#define WK_ALL UINT32_MAX  /* every GPU, in an action */
#define WK_NEVER UINT64_MAX

/* The grid of time that sensors stand on, and how much of the past they need: a second, before an update that may be
 * a tenth of a second old. */
#define WK_GRID_NS UINT64_C(5000000)
#define WK_PAST 222u

enum wk_clock_mode { WK_CLOCK_REAL = 0, WK_CLOCK_MANUAL = 1 };
enum wk_profile { WK_PROFILE_NONE = 0, WK_PROFILE_DRIVER = 1 };

/* For so long a load draws so much. Loads are sequences of these, once or over and over. */
struct wk_segment {
    uint32_t duration_us;
    uint16_t level_bp;  /* of what the model can draw above idle, in hundredths of a percent */
    uint16_t memory_bp; /* the share of the time that waits for memory, which a lower clock does not lengthen */
};

/* What runs on a GPU. Work is counted in nanoseconds at full speed. */
struct wk_load {
    char profile[WK_PROFILE_SIZE]; /* its name, for people; empty: idle */
    uint64_t start_ns;
    uint64_t end_ns;  /* when it will be done, as things stand; WK_NEVER: not by itself */
    uint64_t goal_ns; /* how much work it has to do; 0: no end */
    uint32_t once;    /* runs through its segments once and is done, rather than over and over */
    uint32_t count;   /* of segments; 0: idle */
};

/* One process on a GPU. A pid that `lives` leaves the list when that process has ended. */
struct wk_process {
    uint32_t pid;
    uint32_t lives;
    uint32_t use_bp; /* its share of the GPU's use */
    uint32_t memory_mib;
    uint32_t instance; /* of MIG: place in `instances`; WK_ALL: none */
};

/* One MIG instance. */
struct wk_instance {
    char uuid[WK_UUID_SIZE];
    uint32_t slices; /* of compute, out of the model's mig_slices */
    uint32_t memory_mib;
};

/* What is wrong with a GPU, for NVML's clients only. Answers are nvmlReturn_t; 0: none. */
struct wk_faults {
    uint32_t hang;           /* calls on this device block ... */
    uint32_t hang_ms;        /* ... for so long each; 0: until the fault is cleared */
    uint32_t slow_us;        /* every call takes so much longer */
    uint32_t answer;         /* what every call on this device answers: GPU_IS_LOST, TIMEOUT, UNKNOWN ... */
    uint32_t set_answer;     /* what setters answer: NO_PERMISSION ... */
    uint32_t set_ignored;    /* setters answer success and change nothing */
    uint32_t counter_sticks; /* the energy counter stands at `stuck_mj` */
    uint32_t oob_limit_mw;   /* an out-of-band limit (a BMC's); 0: none */
    uint64_t stuck_mj;
};

struct wk_gpu {
    struct wk_model model;
    char uuid[WK_UUID_SIZE];
    char serial[16];
    uint32_t pci_bus;
    int32_t gain_ppm;       /* by how much its sensors read more than it draws */
    uint32_t ideal_sensors; /* always up to date, no averages */

    uint32_t requested_mw;
    uint32_t module_mw; /* the limit of its module; 0: it has none */
    uint32_t persistence;
    uint32_t mig;
    uint32_t instance_count;
    uint32_t process_count;
    struct wk_instance instances[WK_MAX_INSTANCES];
    struct wk_process processes[WK_MAX_PROCESSES];
    struct wk_faults faults;

    /* the limit that acts: on its way from `ramp_from_mw` since `ramp_ns` to what is enforced */
    uint32_t ramp_from_mw;
    uint64_t ramp_ns;

    /* the anchor: sums as they stood at `stamp_ns`, as the sensors see them, since the GPU was made */
    uint64_t stamp_ns;
    uint64_t energy_mj;
    uint64_t energy_pj; /* remainder below one millijoule; 1 mW for 1 ns is 1 pJ */
    uint64_t capped_ns; /* for how long the limit has held the GPU below its natural power */
    uint64_t work_ns;   /* that the present load has done */
    uint64_t work_ppm;  /* remainder, in millionths of a nanosecond */
    int32_t heat_mc;    /* temperature above ambient, in thousandths of a degree */

    /* energy_mj at the last grid times up to stamp_ns, the latest first: what sensors show lies in the past */
    uint64_t past_mj[WK_PAST];

    /* what NVML's counters do not show of the sums: what they were when the driver was loaded, and jumps */
    uint64_t driver_loaded_ns;
    uint64_t counter_base_mj;
    int64_t counter_jump_mj;
    uint64_t capped_base_ns;

    uint64_t xid_count;
    uint32_t xids[WK_XIDS]; /* the n-th is at n % WK_XIDS */

    struct wk_load load;
    struct wk_segment segments[WK_MAX_SEGMENTS]; /* last, for readers copy only the `load.count` that are used */
};

/* Something to be done later: at a time, or when something happens for the `nth` time. actions.h has the kinds. */
struct wk_action {
    uint64_t at_ns;    /* WK_NEVER: waits for `event` */
    uint64_t every_ns; /* and again after so long; 0: once */
    uint64_t delay_ns; /* so long after the event */
    uint32_t event;    /* enum wk_event; 0: none */
    uint32_t nth;      /* the event has to happen so many times more */
    uint32_t gpu;      /* minor number, or WK_ALL */
    uint32_t kind;     /* enum wk_kind */
    uint32_t which;    /* of the kind: a fault, a profile */
    uint32_t level_bp; /* of a load */
    int64_t value;     /* in the unit that the kind says */
};

/* What belongs to no GPU. */
struct wk_node {
    char boot_id[WK_BOOT_ID_SIZE]; /* of the boot that the stamps belong to */
    char driver_version[WK_VERSION_SIZE];
    uint32_t clock_mode;
    uint32_t profile; /* of latency */
    uint32_t gpu_count;
    uint64_t manual_ns; /* the time, where the clock is manual */
    int64_t offset_ns;  /* added to CLOCK_BOOTTIME, where it is real */
    uint64_t driver_generation;
    uint64_t driver_loaded_ns;
    struct wk_faults faults; /* of the whole library: hang, hang_ms, slow_us and answer */
    uint32_t order[WK_MAX_GPUS]; /* order[NVML index] = minor number */
    uint32_t action_count;
    struct wk_action actions[WK_MAX_ACTIONS]; /* by at_ns */
};

struct wk_state {
    struct wk_node node;
    struct wk_gpu gpus[WK_MAX_GPUS]; /* by minor number */
};

struct wk_file {
    uint64_t magic;
    uint32_t version;
    uint32_t size;
    _Atomic uint64_t sequence; /* odd: a write is under way; slot (sequence / 2) % 2 is the published one */
    struct wk_state slots[2];
};

/* One open state. Shared by threads; counted, so that a call under way outlives nvmlShutdown. */
struct wk_sim {
    char path[4096];
    char driver_lock[4096];
    char client_lock[4096];
    struct wk_file *file;
    int fd;
    bool writable;
    ino_t inode;
    dev_t device;
    _Atomic unsigned references;
};

/* A change: `state` is a private copy with all done that was due by `now_ns`, to be altered and then committed or
 * dropped. A GPU is settled (wk_settle) before something of it changes that its sums depend on. */
struct wk_change {
    struct wk_sim *sim;
    int lock;
    uint64_t sequence;
    uint64_t now_ns;
    struct wk_state *state;
};

/* Writes `initial` as the state of `folder`. Fails with EEXIST where there is one, unless `replace`. */
int wk_create(const char *folder, const struct wk_state *initial, bool replace);

/* Opens the state of `folder`, for writing where this process may. */
int wk_open(const char *folder, struct wk_sim **sim);
void wk_close(struct wk_sim *sim);

/* A consistent copy of the node and of one GPU, with all done that was due, and the simulated time it was good at.
 * Needs no write access. `gpu` NULL: the node alone. ENODEV: no such GPU. */
int wk_read(const struct wk_sim *sim, unsigned minor, struct wk_node *node, struct wk_gpu *gpu, uint64_t *now_ns);

/* The same of everything, at one instant. */
int wk_read_all(const struct wk_sim *sim, struct wk_state *state, uint64_t *now_ns);

/* Begins a change: takes the writers' lock and does what is due. */
int wk_begin(struct wk_sim *sim, struct wk_change *change);
void wk_commit(struct wk_change *change);
void wk_abandon(struct wk_change *change);

/* A lock on a file's own open description: excludes threads and processes alike, gone when its holder dies.
 * Answers the descriptor that wk_unlock takes, or -1 with errno. `operation` is LOCK_SH or LOCK_EX. */
int wk_lock(const char *path, int operation);
void wk_unlock(int lock);

#endif
