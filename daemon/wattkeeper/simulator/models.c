#include "models.h"

#include <strings.h>

#include "nvml_header.h"

/* Limits: the ranges that such boards have been seen to answer (V100 SXM2 150-300 W, A100 80 GB 100-500,
 * H100 SXM 200-700) and their design power as the default (data sheets: V100 PCIe 250 W and SXM2 300, A100 SXM4
 * 400, H100 PCIe 350 and SXM5 700). The V100 PCIe's lower bound is the lowest limit of the Zeus traces
 * (github.com/ml-energy/zeus), which were taken on one.
 * Peak: the design power, for at the default limit these boards run their heaviest work just uncapped.
 * Idle: of the size that nvidia-smi shows on an idle board with persistence mode on; no vendor states one.
 * Clocks, memory and PCI ids: data sheets and the PCI id database (pci-ids.ucw.cz). */
const struct wk_model wk_models[] = {
    {.key = "H100", .name = "NVIDIA H100 80GB HBM3",
     .default_mw = 700000, .min_mw = 200000, .max_mw = 700000, .idle_mw = 70000, .peak_mw = 700000,
     .memory_mib = 81559, .sm_clock_mhz = 1980, .memory_clock_mhz = 2619, .pci_id = 0x233010de,
     .architecture = NVML_DEVICE_ARCH_HOPPER, .compute_major = 9, .compute_minor = 0,
     .brand = NVML_BRAND_NVIDIA, .has_mig = 1, .has_average_power = 1},
    {.key = "H100-PCIe", .name = "NVIDIA H100 PCIe",
     .default_mw = 350000, .min_mw = 200000, .max_mw = 350000, .idle_mw = 45000, .peak_mw = 350000,
     .memory_mib = 81559, .sm_clock_mhz = 1755, .memory_clock_mhz = 1593, .pci_id = 0x233110de,
     .architecture = NVML_DEVICE_ARCH_HOPPER, .compute_major = 9, .compute_minor = 0,
     .brand = NVML_BRAND_NVIDIA, .has_mig = 1, .has_average_power = 1},
    {.key = "A100", .name = "NVIDIA A100-SXM4-80GB",
     .default_mw = 400000, .min_mw = 100000, .max_mw = 500000, .idle_mw = 55000, .peak_mw = 400000,
     .memory_mib = 81920, .sm_clock_mhz = 1410, .memory_clock_mhz = 1593, .pci_id = 0x20b210de,
     .architecture = NVML_DEVICE_ARCH_AMPERE, .compute_major = 8, .compute_minor = 0,
     .brand = NVML_BRAND_NVIDIA, .has_mig = 1, .has_average_power = 0},
    {.key = "V100", .name = "Tesla V100-SXM2-16GB",
     .default_mw = 300000, .min_mw = 150000, .max_mw = 300000, .idle_mw = 40000, .peak_mw = 300000,
     .memory_mib = 16384, .sm_clock_mhz = 1530, .memory_clock_mhz = 877, .pci_id = 0x1db110de,
     .architecture = NVML_DEVICE_ARCH_VOLTA, .compute_major = 7, .compute_minor = 0,
     .brand = NVML_BRAND_TESLA, .has_mig = 0, .has_average_power = 0},
    {.key = "V100-PCIe", .name = "Tesla V100-PCIE-16GB",
     .default_mw = 250000, .min_mw = 100000, .max_mw = 250000, .idle_mw = 25000, .peak_mw = 250000,
     .memory_mib = 16384, .sm_clock_mhz = 1380, .memory_clock_mhz = 877, .pci_id = 0x1db410de,
     .architecture = NVML_DEVICE_ARCH_VOLTA, .compute_major = 7, .compute_minor = 0,
     .brand = NVML_BRAND_TESLA, .has_mig = 0, .has_average_power = 0},
};

const size_t wk_model_count = sizeof wk_models / sizeof wk_models[0];

const struct wk_model *wk_find_model(const char *key)
{
    for (size_t i = 0; i < wk_model_count; i++)
        if (strcasecmp(wk_models[i].key, key) == 0)
            return &wk_models[i];
    return NULL;
}
