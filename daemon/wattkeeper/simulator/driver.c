#include "driver.h"

#include <limits.h>

#ifndef WK_FIELD_END
#define WK_FIELD_END UINT_MAX
#define WK_CUDA_VERSION 13000
#define WK_NVML_VERSION "13.580.65.06"
#endif

const struct wk_driver wk_driver = {WK_FIELD_END, WK_CUDA_VERSION, WK_NVML_VERSION};
