/* NVIDIA's own header, with every function that it declares made visible: what we define of it is exported and
 * its prototype is checked; everything else in the library stays hidden.
 *
 * What our functions use of newer headers is given here to older ones, told by NVML's own macros, so that no other
 * file has to know which header it meets. Functions that only newer headers declare are declared here too. */
#ifndef WK_NVML_HEADER_H
#define WK_NVML_HEADER_H

#pragma GCC visibility push(default)
#include <nvml.h>

/* until driver 535 (CUDA 12.2). nvmlErrorString's own table asks for 520 (CUDA 11.8). */
#ifndef nvmlClocksEventReasonNone
#define nvmlClocksEventReasonGpuIdle nvmlClocksThrottleReasonGpuIdle
#define nvmlClocksEventReasonSwPowerCap nvmlClocksThrottleReasonSwPowerCap
#define nvmlClocksEventReasonHwSlowdown nvmlClocksThrottleReasonHwSlowdown
#define nvmlClocksEventReasonSwThermalSlowdown nvmlClocksThrottleReasonSwThermalSlowdown
#define nvmlClocksEventReasonNone nvmlClocksThrottleReasonNone
#define nvmlClocksEventReasonAll nvmlClocksThrottleReasonAll
nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *clocksEventReasons);
nvmlReturn_t nvmlDeviceGetSupportedClocksEventReasons(nvmlDevice_t device,
                                                      unsigned long long *supportedClocksEventReasons);
#endif
#ifndef NVML_POWER_SCOPE_GPU
#define NVML_POWER_SCOPE_GPU 0U
#define NVML_POWER_SCOPE_MODULE 1U
#endif
#ifndef NVML_FI_DEV_POWER_AVERAGE
#define NVML_FI_DEV_POWER_AVERAGE 185
#define NVML_FI_DEV_POWER_INSTANT 186
#define NVML_FI_DEV_POWER_MIN_LIMIT 187
#define NVML_FI_DEV_POWER_MAX_LIMIT 188
#define NVML_FI_DEV_POWER_DEFAULT_LIMIT 189
#define NVML_FI_DEV_POWER_CURRENT_LIMIT 190
#define NVML_FI_DEV_ENERGY 191
#define NVML_FI_DEV_POWER_REQUESTED_LIMIT 192
#endif

#ifndef nvmlPowerValue_v2
typedef struct {
    unsigned int version;
    unsigned char powerScope;
    unsigned int powerValueMw;
} nvmlPowerValue_v2_t;
#define nvmlPowerValue_v2 NVML_STRUCT_VERSION(PowerValue, 2)
nvmlReturn_t nvmlDeviceSetPowerManagementLimit_v2(nvmlDevice_t device, nvmlPowerValue_v2_t *powerValue);
#endif

/* until a driver after 550 (CUDA 12.4) */
#ifndef nvmlTemperature_v1
typedef struct {
    unsigned int version;
    nvmlTemperatureSensors_t sensorType;
    int temperature;
} nvmlTemperature_v1_t;
typedef nvmlTemperature_v1_t nvmlTemperature_t;
#define nvmlTemperature_v1 NVML_STRUCT_VERSION(Temperature, 1)
nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature);
#endif
#pragma GCC visibility pop

#endif
