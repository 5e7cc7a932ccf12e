/* The strings behind the stage: what `wattkeeper sim` and tests move. Not part of NVML.
 *
 * All answer 0 or an errno, as in state.h; ERANGE is a value outside of what the device or the field takes, and
 * ENODEV no such GPU. GPUs are named by minor number. Neither latency nor faults touch these. */
#ifndef WK_CONTROLS_H
#define WK_CONTROLS_H

#include "state.h"

#define WK_EXPORT __attribute__((visibility("default")))

/* Mirrored field by field in library.py; wk_sim_view_sizes guards against a mismatch. */
struct wk_gpu_view {
    char uuid[WK_UUID_SIZE];
    char name[64];
    char model[16];
    uint32_t minor;
    uint32_t index;
    uint32_t pci_bus;
    uint32_t min_mw;
    uint32_t default_mw;
    uint32_t max_mw;
    uint32_t requested_mw;
    uint32_t enforced_mw;
    uint32_t natural_mw;
    uint32_t power_mw;
    uint32_t temperature_c;
    uint32_t load_bp;
    uint32_t oob_limit_mw;
    uint32_t hang;
    uint32_t hang_ms;
    uint32_t lost;
    uint32_t set_ignored;
    uint32_t set_refused;
    uint64_t energy_mj;
    uint64_t capped_ns;
};

struct wk_node_view {
    char boot_id[WK_BOOT_ID_SIZE];
    uint32_t clock_mode;
    uint32_t profile;
    uint32_t gpu_count;
    uint32_t writable;
    uint64_t now_ns;
    uint64_t driver_generation;
    uint64_t driver_loaded_ns;
    struct wk_gpu_view gpus[WK_MAX_GPUS];
};

WK_EXPORT unsigned wk_sim_view_size(void);

/* The key of the n-th model, or NULL beyond the last. */
WK_EXPORT const char *wk_sim_model_key(unsigned n);

/* `order` has `count` minor numbers in NVML's index order, or is NULL. `seed` makes the UUIDs. `limit_mw` is the
 * limit found on every GPU; 0: the model's default. ENODEV: no such model. */
WK_EXPORT int wk_sim_create(const char *folder, const char *model, unsigned count, const uint32_t *order,
                            const char *seed, uint32_t limit_mw, uint32_t profile, bool replace);
WK_EXPORT int wk_sim_open(const char *folder, struct wk_sim **sim);
WK_EXPORT void wk_sim_close(struct wk_sim *sim);

/* The truth: every GPU at one instant. */
WK_EXPORT int wk_sim_read(const struct wk_sim *sim, struct wk_node_view *view);

WK_EXPORT int wk_sim_set_limit(struct wk_sim *sim, unsigned minor, uint32_t limit_mw);
WK_EXPORT int wk_sim_set_load(struct wk_sim *sim, unsigned minor, uint32_t load_bp);

/* hang (value: milliseconds per call, 0: until cleared), lost, ignored, no-permission, oob (value: milliwatts).
 * EINVAL: no such fault. */
WK_EXPORT int wk_sim_set_fault(struct wk_sim *sim, unsigned minor, const char *kind, uint32_t value);

/* `kind` NULL clears every fault of the GPU. */
WK_EXPORT int wk_sim_clear_fault(struct wk_sim *sim, unsigned minor, const char *kind);

WK_EXPORT int wk_sim_set_profile(struct wk_sim *sim, uint32_t profile);

/* The driver is loaded anew: limits at default, counters at 0. Load and faults are the script's and stay. */
WK_EXPORT int wk_sim_reload_driver(struct wk_sim *sim);

/* The node is started anew, now: as a driver reload, and load and faults are gone, but for an out-of-band limit. */
WK_EXPORT int wk_sim_reboot(struct wk_sim *sim);

/* Stamps the state with another boot's id, as one left over from before the machine was last started. */
WK_EXPORT int wk_sim_set_boot_id(struct wk_sim *sim, const char *boot_id);

/* From real to manual the clock stops where it is; back, it goes on from there. */
WK_EXPORT int wk_sim_set_clock_mode(struct wk_sim *sim, uint32_t mode);

/* Moves the time ahead, in either mode. */
WK_EXPORT int wk_sim_advance(struct wk_sim *sim, uint64_t nanoseconds);

#endif
