/* What the files of NVML's functions share. */
#ifndef WK_EXPORTS_H
#define WK_EXPORTS_H

#include <stddef.h>

#include "session.h"

/* Defines an NVML function that answers one figure of the device `call.gpu` of an entered call. */
#define WK_DEFINE_READ(function, cost, type, out, statement)                                                         \
    nvmlReturn_t function(nvmlDevice_t device, type *out)                                                            \
    {                                                                                                                \
        struct wk_call call;                                                                                         \
        nvmlReturn_t answer = wk_enter(&call, device, cost, out != NULL);                                            \
        if (answer == NVML_SUCCESS)                                                                                  \
            statement;                                                                                               \
        return wk_leave(&call, answer);                                                                              \
    }

/* The same where a board may lack it: NOT_SUPPORTED unless `condition`. */
#define WK_DEFINE_READ_IF(function, cost, type, out, condition, statement)                                           \
    nvmlReturn_t function(nvmlDevice_t device, type *out)                                                            \
    {                                                                                                                \
        struct wk_call call;                                                                                         \
        nvmlReturn_t answer = wk_enter(&call, device, cost, out != NULL);                                            \
        if (answer == NVML_SUCCESS && !(condition))                                                                  \
            answer = NVML_ERROR_NOT_SUPPORTED;                                                                       \
        if (answer == NVML_SUCCESS)                                                                                  \
            statement;                                                                                               \
        return wk_leave(&call, answer);                                                                              \
    }

/* What NVML says where there is no MIG instance, and the ids of those that there are. A GPU instance has one
 * compute instance; its own id is not 0, which on real boards is that of an instance as large as the GPU. */
#define WK_NO_INSTANCE 0xFFFFFFFFu
#define WK_COMPUTE_INSTANCE 0u

static inline unsigned wk_gpu_instance_id(unsigned instance)
{
    return instance == WK_ALL ? WK_NO_INSTANCE : instance + 1;
}

static inline bool wk_lacks(const struct wk_call *call, enum wk_lack what)
{
    return (call->gpu->model.lacks & what) != 0;
}

/* The share of the GPU's memory that a MIG instance has, in eighths, and at least one: the grain in which real boards
 * deal it out. */
unsigned wk_eighths(const struct wk_model *model, const struct wk_instance *instance);

/* The processes that are on the GPU, or on the MIG instance, of an entered call. Answers how many. */
unsigned wk_list_processes(const struct wk_call *call, struct wk_process processes[WK_MAX_PROCESSES]);

/* What NVML calls a CPU timestamp: microseconds of the wall clock. */
unsigned long long wk_wall_us(void);

#endif
