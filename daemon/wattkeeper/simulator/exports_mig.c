/* NVML's functions for MIG: instances that a GPU is divided into, each with a handle of its own. What is known of the
 * whole GPU only (limits, energy, utilisation) answers NOT_SUPPORTED on such a handle: wk_enter sees to that. */
#include "exports.h"

static unsigned instances(const struct wk_gpu *gpu)
{
    return gpu->mig ? gpu->instance_count : 0;
}

unsigned wk_eighths(const struct wk_model *model, const struct wk_instance *instance)
{
    uint64_t whole_mib = model->memory_mib == 0 ? 1 : model->memory_mib;
    uint64_t eighths = (instance->memory_mib * UINT64_C(8) + whole_mib / 2) / whole_mib;
    return eighths == 0 ? 1 : eighths > 8 ? 8 : (unsigned)eighths;
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *currentMode, unsigned int *pendingMode)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_CACHED, currentMode != NULL && pendingMode != NULL);
    if (answer == NVML_SUCCESS && call.gpu->model.mig_slices == 0)
        answer = NVML_ERROR_NOT_SUPPORTED;
    if (answer == NVML_SUCCESS)
        *currentMode = *pendingMode = call.gpu->mig;
    return wk_leave(&call, answer);
}

WK_DEFINE_READ(nvmlDeviceGetMaxMigDeviceCount, WK_CACHED, unsigned int, count,
               *count = call.gpu->mig ? call.gpu->model.mig_slices : 0)

nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *isMigDevice)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter_any(&call, device, WK_CACHED, isMigDevice != NULL);
    if (answer == NVML_SUCCESS)
        *isMigDevice = call.instance != WK_ALL;
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *migDevice)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_CACHED, migDevice != NULL);
    if (answer == NVML_SUCCESS && call.gpu->model.mig_slices == 0)
        answer = NVML_ERROR_NOT_SUPPORTED;
    else if (answer == NVML_SUCCESS && index >= instances(call.gpu))
        answer = NVML_ERROR_NOT_FOUND;
    if (answer == NVML_SUCCESS)
        *migDevice = wk_handle(call.minor, index);
    return wk_leave(&call, answer);
}

/* Enters a call that makes sense for an instance alone. */
static nvmlReturn_t enter_instance(struct wk_call *call, nvmlDevice_t device, bool valid)
{
    nvmlReturn_t answer = wk_enter_any(call, device, WK_CACHED, valid);
    return answer == NVML_SUCCESS && call->instance == WK_ALL ? NVML_ERROR_INVALID_ARGUMENT : answer;
}

nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t migDevice, nvmlDevice_t *device)
{
    struct wk_call call;
    nvmlReturn_t answer = enter_instance(&call, migDevice, device != NULL);
    if (answer == NVML_SUCCESS)
        *device = wk_handle(call.minor, WK_ALL);
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned int *id)
{
    struct wk_call call;
    nvmlReturn_t answer = enter_instance(&call, device, id != NULL);
    if (answer == NVML_SUCCESS)
        *id = wk_gpu_instance_id(call.instance);
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned int *id)
{
    struct wk_call call;
    nvmlReturn_t answer = enter_instance(&call, device, id != NULL);
    if (answer == NVML_SUCCESS)
        *id = WK_COMPUTE_INSTANCE;
    return wk_leave(&call, answer);
}

/* Multiprocessors of one slice, as the MIG user guide's tables have them. */
static unsigned slice_multiprocessors(const struct wk_model *model)
{
    return model->architecture == NVML_DEVICE_ARCH_AMPERE   ? 14
           : model->architecture == NVML_DEVICE_ARCH_HOPPER ? 16
                                                            : 18;
}

nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter_any(&call, device, WK_CACHED, attributes != NULL);
    if (answer == NVML_SUCCESS && call.instance == WK_ALL)
        answer = NVML_ERROR_NOT_SUPPORTED; /* nvml.h: of MIG handles only */
    if (answer == NVML_SUCCESS) {
        const struct wk_instance *instance = &call.gpu->instances[call.instance];
        *attributes = (nvmlDeviceAttributes_t){
            .multiprocessorCount = instance->slices * slice_multiprocessors(&call.gpu->model),
            .sharedCopyEngineCount = instance->slices,
            .gpuInstanceSliceCount = instance->slices,
            .computeInstanceSliceCount = instance->slices,
            .memorySizeMB = instance->memory_mib,
        };
    }
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetAttributes(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes)
{
    return nvmlDeviceGetAttributes_v2(device, attributes);
}
