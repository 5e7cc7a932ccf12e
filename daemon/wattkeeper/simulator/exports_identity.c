/* NVML's functions that say which device this is and what it can do. The real library answers these from its
 * own memory, so they cost no latency. */
#include <stdio.h>

#include "session.h"

/* Defines an NVML function that answers from the device `gpu` of an entered call. */
#define DEFINE_READ(function, cost, type, out, statement)                                                            \
    nvmlReturn_t function(nvmlDevice_t device, type *out)                                                            \
    {                                                                                                                \
        struct wk_call call;                                                                                         \
        nvmlReturn_t answer = wk_enter(&call, device, cost, out != NULL);                                            \
        if (answer == NVML_SUCCESS)                                                                                  \
            statement;                                                                                               \
        return wk_leave(&call, answer);                                                                              \
    }

#define DEFINE_TEXT(function, out, text)                                                                             \
    nvmlReturn_t function(nvmlDevice_t device, char *out, unsigned int length)                                       \
    {                                                                                                                \
        struct wk_call call;                                                                                         \
        nvmlReturn_t answer = wk_enter(&call, device, WK_CACHED, out != NULL);                                       \
        if (answer == NVML_SUCCESS)                                                                                  \
            answer = wk_answer_text(out, length, text);                                                              \
        return wk_leave(&call, answer);                                                                              \
    }

DEFINE_TEXT(nvmlDeviceGetName, name, call.gpu->model.name)
DEFINE_TEXT(nvmlDeviceGetUUID, uuid, call.gpu->uuid)
DEFINE_TEXT(nvmlDeviceGetSerial, serial, call.gpu->serial)

DEFINE_READ(nvmlDeviceGetIndex, WK_CACHED, unsigned int, index, *index = call.index)
DEFINE_READ(nvmlDeviceGetMinorNumber, WK_CACHED, unsigned int, minorNumber, *minorNumber = call.minor)
DEFINE_READ(nvmlDeviceGetBoardId, WK_CACHED, unsigned int, boardId, *boardId = call.gpu->pci_bus << 8)
DEFINE_READ(nvmlDeviceGetBrand, WK_CACHED, nvmlBrandType_t, type, *type = (nvmlBrandType_t)call.gpu->model.brand)
DEFINE_READ(nvmlDeviceGetArchitecture, WK_CACHED, nvmlDeviceArchitecture_t, arch,
            *arch = call.gpu->model.architecture)
DEFINE_READ(nvmlDeviceIsMigDeviceHandle, WK_CACHED, unsigned int, isMigDevice, *isMigDevice = 0)
DEFINE_READ(nvmlDeviceGetPersistenceMode, WK_CACHED, nvmlEnableState_t, mode, *mode = (nvmlEnableState_t)call.gpu->persistence)
DEFINE_READ(nvmlDeviceGetPowerManagementMode, WK_CACHED, nvmlEnableState_t, mode, *mode = NVML_FEATURE_ENABLED)

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_CACHED, major != NULL && minor != NULL);
    if (answer == NVML_SUCCESS) {
        *major = (int)call.gpu->model.compute_major;
        *minor = (int)call.gpu->model.compute_minor;
    }
    return wk_leave(&call, answer);
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

nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, nvmlEnableState_t *current, nvmlEnableState_t *pending)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_CACHED, current != NULL && pending != NULL);
    if (answer == NVML_SUCCESS)
        *current = *pending = NVML_FEATURE_ENABLED;
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_CACHED, pci != NULL);
    if (answer == NVML_SUCCESS) {
        *pci = (nvmlPciInfo_t){.bus = call.gpu->pci_bus & 0xff, .pciDeviceId = call.gpu->model.pci_id};
        snprintf(pci->busId, sizeof pci->busId, NVML_DEVICE_PCI_BUS_ID_FMT, 0u, pci->bus, 0u);
        snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, NVML_DEVICE_PCI_BUS_ID_LEGACY_FMT, 0u, pci->bus, 0u);
    }
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    return nvmlDeviceGetPciInfo_v3(device, pci);
}

nvmlReturn_t nvmlDeviceGetPciInfo(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    return nvmlDeviceGetPciInfo_v3(device, pci);
}
