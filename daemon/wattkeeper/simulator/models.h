/* The models of GPU that can be simulated. */
#ifndef WK_MODELS_H
#define WK_MODELS_H

#include <stddef.h>
#include <stdint.h>

struct wk_model {
    char key[16];  /* what `--model` takes */
    char name[64]; /* what nvmlDeviceGetName answers */
    uint32_t default_mw;
    uint32_t min_mw;
    uint32_t max_mw;
    uint32_t idle_mw;
    uint32_t peak_mw;
    uint32_t memory_mib;
    uint32_t sm_clock_mhz; /* the highest */
    uint32_t memory_clock_mhz;
    uint32_t pci_id; /* device << 16 | vendor */
    uint32_t architecture;
    uint32_t compute_major;
    uint32_t compute_minor;
    uint32_t brand;
    uint32_t has_mig;
    uint32_t has_average_power; /* field 185: "Ampere (except GA100) or newer", nvml.h */
};

extern const struct wk_model wk_models[];
extern const size_t wk_model_count;

/* NULL where there is no such model. Case does not matter. */
const struct wk_model *wk_find_model(const char *key);

#endif
