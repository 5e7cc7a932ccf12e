/* The shared state of one simulated node: a file that every process maps.
 *
 * There is no simulator process. What a GPU draws and has drawn is a pure function of the last change and of
 * the time since (physics.h), so only changes are written: a limit, a load, a fault, a step of the clock.
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
#define WK_VERSION 1u
#define WK_MAX_GPUS 16u
#define WK_UUID_SIZE 48
#define WK_BOOT_ID_SIZE 40

enum wk_clock_mode { WK_CLOCK_REAL = 0, WK_CLOCK_MANUAL = 1 };
enum wk_profile { WK_PROFILE_NONE = 0, WK_PROFILE_DRIVER = 1 };

struct wk_gpu {
    struct wk_model model; /* a copy: a state stays readable when the table of models changes */
    char uuid[WK_UUID_SIZE];
    char serial[16];
    uint32_t pci_bus;
    uint32_t requested_mw;
    uint32_t load_bp; /* hundredths of a percent of what the model can draw above idle */

    /* faults */
    uint32_t oob_limit_mw; /* an out-of-band limit (a BMC's); 0: none */
    uint32_t hang;         /* calls on this device block ... */
    uint32_t hang_ms;      /* ... for so long each; 0: until the fault is cleared */
    uint32_t lost;         /* fallen off the bus */
    uint32_t set_ignored;  /* the setter answers success and changes nothing */
    uint32_t set_refused;  /* the setter answers NO_PERMISSION */

    /* the anchor: counters as they stood at `stamp_ns` */
    uint64_t stamp_ns;
    uint64_t energy_mj;
    uint64_t energy_pj; /* remainder below one millijoule; 1 mW for 1 ns is 1 pJ */
    uint64_t capped_ns; /* for how long the limit has held the GPU below its natural power */
};

struct wk_state {
    char boot_id[WK_BOOT_ID_SIZE]; /* of the boot that the stamps belong to */
    uint32_t clock_mode;
    uint32_t profile;
    uint64_t manual_ns; /* the time, where the clock is manual */
    int64_t offset_ns;  /* added to CLOCK_BOOTTIME, where it is real */
    uint64_t driver_generation;
    uint64_t driver_loaded_ns;
    uint32_t gpu_count;
    uint32_t order[WK_MAX_GPUS]; /* order[NVML index] = minor number */
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
    struct wk_file *file;
    int fd;
    bool writable;
    ino_t inode;
    dev_t device;
    _Atomic unsigned references;
};

/* A change: `state` is a private copy, settled at `now_ns`, to be altered and then committed or dropped. */
struct wk_change {
    struct wk_sim *sim;
    int lock;
    uint64_t sequence;
    uint64_t now_ns;
    struct wk_state state;
};

/* Writes `initial` as the state of `folder`. Fails with EEXIST where there is one, unless `replace`. */
int wk_create(const char *folder, const struct wk_state *initial, bool replace);

/* Opens the state of `folder`, for writing where this process may. */
int wk_open(const char *folder, struct wk_sim **sim);
void wk_close(struct wk_sim *sim);

/* A consistent copy of the state and the simulated time it was good at. Needs no write access. */
int wk_read(const struct wk_sim *sim, struct wk_state *state, uint64_t *now_ns);

/* Begins a change: takes the writers' lock and settles every counter at the present time. */
int wk_begin(struct wk_sim *sim, struct wk_change *change);
void wk_commit(struct wk_change *change);
void wk_abandon(struct wk_change *change);

/* A lock on a file's own open description: excludes threads and processes alike, gone when its holder dies.
 * Answers the descriptor that wk_unlock takes, or -1 with errno. `operation` is LOCK_SH or LOCK_EX. */
int wk_lock(const char *path, int operation);
void wk_unlock(int lock);

#endif
