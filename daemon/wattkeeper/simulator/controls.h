/* The strings behind the stage: what `wattkeeper sim` and tests move. Not part of NVML.
 *
 * All answer 0 or an errno, as in state.h; ERANGE is a value outside of what the device or the field takes, ENODEV
 * no such GPU, ENOSPC that too much waits. GPUs are named by minor number. Neither latency nor faults touch these.
 * Every struct here is mirrored field by field in library.py; wk_sim_sizes guards against a mismatch. */
#ifndef WK_CONTROLS_H
#define WK_CONTROLS_H

#include "actions.h"
#include "state.h"

#define WK_EXPORT __attribute__((visibility("default")))

/* The truth about a GPU, and beside it what its sensors say. */
struct wk_gpu_view {
    struct wk_model model;
    char uuid[WK_UUID_SIZE];
    char load[WK_PROFILE_SIZE]; /* empty: idle */
    uint32_t minor;
    uint32_t index;
    uint32_t pci_bus;
    int32_t gain_ppm;
    uint32_t requested_mw;
    uint32_t module_mw;
    uint32_t enforced_mw;
    uint32_t acting_mw; /* on its way to what is enforced */
    uint32_t natural_mw;
    uint32_t power_mw;
    uint32_t sensed_mw; /* nvmlDeviceGetPowerUsage */
    uint32_t clock_mhz;
    uint32_t speed_ppm;
    uint32_t temperature_mc;
    uint32_t use_percent;
    uint32_t persistence;
    uint32_t mig;
    uint32_t instance_count;
    uint32_t process_count;
    struct wk_faults faults;
    struct wk_instance instances[WK_MAX_INSTANCES];
    struct wk_process processes[WK_MAX_PROCESSES];
    uint64_t energy_mj;  /* since the driver was loaded */
    uint64_t counter_mj; /* nvmlDeviceGetTotalEnergyConsumption */
    uint64_t capped_ns;  /* since the driver was loaded */
    uint64_t xid_count;
    uint64_t load_start_ns;
    uint64_t load_end_ns;  /* WK_NEVER: not by itself */
    uint64_t load_goal_ns; /* 0: no end */
    uint64_t load_done_ns;
};

struct wk_node_view {
    char boot_id[WK_BOOT_ID_SIZE];
    char driver_version[WK_VERSION_SIZE];
    uint32_t clock_mode;
    uint32_t profile;
    uint32_t gpu_count;
    uint32_t writable;
    uint32_t action_count;
    struct wk_faults faults;
    uint64_t now_ns;
    uint64_t driver_generation;
    uint64_t driver_loaded_ns;
    struct wk_action actions[WK_MAX_ACTIONS]; /* what is planned */
    struct wk_gpu_view gpus[WK_MAX_GPUS];
};

struct wk_gpu_spec {
    struct wk_model model;
    uint32_t limit_mw; /* found on the GPU; 0: the model's default */
    int32_t gain_ppm;
};

struct wk_node_spec {
    char driver_version[WK_VERSION_SIZE];
    uint32_t profile;
    uint32_t ideal_sensors;
    uint32_t manual_clock; /* begins at 0 */
    uint32_t replace;
};

/* The sizes of wk_node_view, wk_gpu_spec, wk_node_spec, wk_action, wk_load, wk_segment in this order; 0 beyond. */
WK_EXPORT unsigned wk_sim_size(unsigned n);

/* The n-th profile of load, or NULL beyond the last. */
WK_EXPORT const char *wk_sim_profile_name(unsigned n);

/* `order` has `count` minor numbers in NVML's index order, or is NULL. `seed` makes the UUIDs. */
WK_EXPORT int wk_sim_create(const char *folder, const struct wk_node_spec *spec, const struct wk_gpu_spec *gpus,
                            unsigned count, const uint32_t *order, const char *seed);
WK_EXPORT int wk_sim_open(const char *folder, struct wk_sim **sim);
WK_EXPORT void wk_sim_close(struct wk_sim *sim);

/* The truth: every GPU at one instant, and what is planned. */
WK_EXPORT int wk_sim_read(const struct wk_sim *sim, struct wk_node_view *view);

/* Does something: at once where it waits for no event and `at_ns` is not after now, else then. */
WK_EXPORT int wk_sim_act(struct wk_sim *sim, const struct wk_action *action);

/* Nothing is planned any more. */
WK_EXPORT int wk_sim_forget_plans(struct wk_sim *sim);

/* A load of one's own. `segments` has load->count entries; start, end and progress are not looked at. */
WK_EXPORT int wk_sim_set_load(struct wk_sim *sim, unsigned minor, const struct wk_load *load,
                              const struct wk_segment *segments);

WK_EXPORT int wk_sim_set_processes(struct wk_sim *sim, unsigned minor, const struct wk_process *processes,
                                   unsigned count);

/* Turns MIG on with these instances (their UUIDs are made here), or off with none. Takes the processes away.
 * ERANGE: more slices or memory than the model has; ENOTSUP: it has no MIG. */
WK_EXPORT int wk_sim_set_instances(struct wk_sim *sim, unsigned minor, const struct wk_instance *instances,
                                   unsigned count);

/* Stamps the state with another boot's id, as one left over from before the machine was last started. */
WK_EXPORT int wk_sim_set_boot_id(struct wk_sim *sim, const char *boot_id);

/* From real to manual the clock stops where it is; back, it goes on from there. */
WK_EXPORT int wk_sim_set_clock_mode(struct wk_sim *sim, uint32_t mode);

/* Moves the time ahead, in either mode, and does what becomes due on the way. */
WK_EXPORT int wk_sim_advance(struct wk_sim *sim, uint64_t nanoseconds);

#endif
