/* NVML's functions of the node: versions, counting and finding devices. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "driver.h"
#include "session.h"

const char *nvmlErrorString(nvmlReturn_t result)
{
    static const struct {
        nvmlReturn_t result;
        const char *text;
    } texts[] = {
        {NVML_SUCCESS, "Success"},
        {NVML_ERROR_UNINITIALIZED, "Uninitialized"},
        {NVML_ERROR_INVALID_ARGUMENT, "Invalid Argument"},
        {NVML_ERROR_NOT_SUPPORTED, "Not Supported"},
        {NVML_ERROR_NO_PERMISSION, "Insufficient Permissions"},
        {NVML_ERROR_ALREADY_INITIALIZED, "Already Initialized"},
        {NVML_ERROR_NOT_FOUND, "Not Found"},
        {NVML_ERROR_INSUFFICIENT_SIZE, "Insufficient Size"},
        {NVML_ERROR_INSUFFICIENT_POWER, "Insufficient External Power"},
        {NVML_ERROR_DRIVER_NOT_LOADED, "Driver Not Loaded"},
        {NVML_ERROR_TIMEOUT, "Timeout"},
        {NVML_ERROR_IRQ_ISSUE, "Interrupt Request Issue"},
        {NVML_ERROR_LIBRARY_NOT_FOUND, "NVML Shared Library Not Found"},
        {NVML_ERROR_FUNCTION_NOT_FOUND, "Function Not Found"},
        {NVML_ERROR_CORRUPTED_INFOROM, "Corrupted infoROM"},
        {NVML_ERROR_GPU_IS_LOST, "GPU is lost"},
        {NVML_ERROR_RESET_REQUIRED, "GPU requires restart"},
        {NVML_ERROR_OPERATING_SYSTEM, "The operating system has blocked the request."},
        {NVML_ERROR_LIB_RM_VERSION_MISMATCH, "RM has detected an NVML/RM version mismatch."},
        {NVML_ERROR_IN_USE, "In use by another client"},
        {NVML_ERROR_MEMORY, "Insufficient memory"},
        {NVML_ERROR_NO_DATA, "No data"},
        {NVML_ERROR_ARGUMENT_VERSION_MISMATCH, "Argument version mismatch"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (texts[i].result == result)
            return texts[i].text;
    return "Unknown Error";
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter_node(&call, version != NULL);
    if (answer == NVML_SUCCESS)
        answer = wk_answer_text(version, length, call.node.driver_version);
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
    /* Answered before initialisation too, as nvml.h promises. */
    return version == NULL ? NVML_ERROR_INVALID_ARGUMENT : wk_answer_text(version, length, wk_driver.nvml_version);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *cudaDriverVersion)
{
    if (cudaDriverVersion == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *cudaDriverVersion = wk_driver.cuda_version;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *cudaDriverVersion)
{
    return nvmlSystemGetCudaDriverVersion(cudaDriverVersion);
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *deviceCount)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter_node(&call, deviceCount != NULL);
    if (answer == NVML_SUCCESS)
        *deviceCount = call.node.gpu_count;
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetCount(unsigned int *deviceCount)
{
    return nvmlDeviceGetCount_v2(deviceCount);
}

/* Finding a device answers at once even where its calls hang: what is slow is talking to it. */
static nvmlReturn_t answer_handle(struct wk_call *call, unsigned minor, nvmlDevice_t *device)
{
    nvmlReturn_t answer = wk_take_gpu(call, minor);
    if (answer == NVML_SUCCESS && call->own.faults.answer != 0)
        answer = (nvmlReturn_t)call->own.faults.answer;
    if (answer == NVML_SUCCESS)
        *device = wk_handle(minor, WK_ALL);
    return answer;
}

/* The handle of a GPU, or of one of its MIG instances, by UUID. */
static nvmlReturn_t answer_uuid(struct wk_call *call, unsigned minor, nvmlDevice_t *device, const char *uuid)
{
    nvmlReturn_t answer = wk_take_gpu(call, minor);
    if (answer != NVML_SUCCESS || strcasecmp(call->own.uuid, uuid) == 0)
        return answer == NVML_SUCCESS ? answer_handle(call, minor, device) : answer;
    for (unsigned i = 0; call->own.mig && i < call->own.instance_count; i++) {
        if (strcasecmp(call->own.instances[i].uuid, uuid) != 0)
            continue;
        answer = answer_handle(call, minor, device);
        if (answer == NVML_SUCCESS)
            *device = wk_handle(minor, i);
        return answer;
    }
    return NVML_ERROR_NOT_FOUND;
}

static nvmlReturn_t answer_bus(struct wk_call *call, unsigned minor, nvmlDevice_t *device, unsigned bus)
{
    nvmlReturn_t answer = wk_take_gpu(call, minor);
    if (answer == NVML_SUCCESS)
        answer = call->own.pci_bus == bus ? answer_handle(call, minor, device) : NVML_ERROR_NOT_FOUND;
    return answer;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter_node(&call, device != NULL);
    if (answer == NVML_SUCCESS && index >= call.node.gpu_count)
        answer = NVML_ERROR_INVALID_ARGUMENT;
    if (answer == NVML_SUCCESS)
        answer = answer_handle(&call, call.node.order[index], device);
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter_node(&call, uuid != NULL && device != NULL);
    if (answer == NVML_SUCCESS) {
        answer = NVML_ERROR_NOT_FOUND;
        for (unsigned minor = 0; answer == NVML_ERROR_NOT_FOUND && minor < call.node.gpu_count; minor++)
            answer = answer_uuid(&call, minor, device, uuid);
    }
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *pciBusId, nvmlDevice_t *device)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter_node(&call, pciBusId != NULL && device != NULL);
    if (answer == NVML_SUCCESS) {
        unsigned domain = 0, bus = 0, slot = 0, function = 0;
        if (sscanf(pciBusId, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4) {
            domain = 0;
            if (sscanf(pciBusId, "%x:%x.%x", &bus, &slot, &function) != 3)
                answer = NVML_ERROR_INVALID_ARGUMENT;
        }
        if (answer == NVML_SUCCESS)
            answer = NVML_ERROR_NOT_FOUND;
        for (unsigned minor = 0; answer == NVML_ERROR_NOT_FOUND && minor < call.node.gpu_count; minor++)
            if (domain == 0 && slot == 0 && function == 0)
                answer = answer_bus(&call, minor, device, bus);
    }
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *pciBusId, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByPciBusId_v2(pciBusId, device);
}
