/* A model of GPU, as models.yaml describes it: Python reads that file and hands this over when GPUs are created.
 * A state keeps copies, so it stays readable when the file changes. Mirrored field by field in library.py. */
#ifndef WK_MODELS_H
#define WK_MODELS_H

#include <stdint.h>

#define WK_KEY_SIZE 24
#define WK_NAME_SIZE 64

/* What a board or its driver does not have: the call answers NOT_SUPPORTED. */
enum wk_lack {
    WK_LACKS_ENERGY = 1u << 0,        /* nvmlDeviceGetTotalEnergyConsumption and its fields */
    WK_LACKS_LIMIT = 1u << 1,         /* power management altogether */
    WK_LACKS_ECC = 1u << 2,
    WK_LACKS_FAN = 1u << 3,           /* cooled from outside */
    WK_LACKS_VIOLATIONS = 1u << 4,    /* nvmlDeviceGetViolationStatus */
    WK_LACKS_ACCOUNTED_USE = 1u << 5, /* nvmlDeviceGetProcessUtilization */
};

struct wk_model {
    char key[WK_KEY_SIZE];   /* what `--model` takes */
    char name[WK_NAME_SIZE]; /* what nvmlDeviceGetName answers */

    /* the limit of the GPU, and of the module that it shares with a CPU (Grace Hopper; 0: no such scope) */
    uint32_t default_mw;
    uint32_t min_mw;
    uint32_t max_mw;
    uint32_t module_default_mw;
    uint32_t module_min_mw;
    uint32_t module_max_mw;

    uint32_t idle_mw;          /* nothing runs */
    uint32_t static_mw;        /* what clocks do not change while something runs: leakage, memory */
    uint32_t peak_mw;          /* the heaviest load, unlimited */
    uint32_t companion_mw;     /* the rest of a module: its CPU; in the energy counter too */
    uint32_t voltage_floor_bp; /* share of the highest clock below which the voltage falls no further */
    uint32_t overshoot_bp;     /* what a GPU held by its limit draws above it */

    uint32_t sm_clock_mhz; /* the highest */
    uint32_t min_clock_mhz;
    uint32_t memory_clock_mhz;
    uint32_t memory_mib;

    uint32_t ambient_mc;    /* of the air or water that cools it, in thousandths of a degree Celsius */
    uint32_t resistance_uc; /* how much hotter than that it gets per watt, in millionths of a degree */
    uint32_t thermal_ms;    /* time constant */
    uint32_t slowdown_c;    /* what nvmlDeviceGetTemperatureThreshold answers */
    uint32_t shutdown_c;

    /* sensors; updates are multiples of 20 ms, windows of 5 ms */
    uint32_t power_update_ms;   /* 0: always up to date */
    uint32_t power_window_ms;   /* nvmlDeviceGetPowerUsage averages so long; 0: the instant */
    uint32_t instant_window_ms; /* field 186 likewise */
    uint32_t average_window_ms; /* field 185 likewise; 0: the board lacks it */
    uint32_t energy_update_ms;  /* 0: the counter is always up to date */

    uint32_t pci_id; /* device << 16 | vendor */
    uint32_t architecture;
    uint32_t compute_major;
    uint32_t compute_minor;
    uint32_t brand;
    uint32_t mig_slices; /* 0: no MIG */
    uint32_t lacks;      /* enum wk_lack */
};

#endif
