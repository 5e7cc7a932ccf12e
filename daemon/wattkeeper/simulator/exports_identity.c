/* NVML's functions that say which device this is and what it can do. The real library answers these from its
 * own memory, so they cost no latency. */
#include <stdio.h>

#include "actions.h"
#include "exports.h"

#define DEFINE_TEXT(function, out, text)                                                                             \
    nvmlReturn_t function(nvmlDevice_t device, char *out, unsigned int length)                                       \
    {                                                                                                                \
        struct wk_call call;                                                                                         \
        nvmlReturn_t answer = wk_enter(&call, device, WK_CACHED, out != NULL);                                       \
        if (answer == NVML_SUCCESS)                                                                                  \
            answer = wk_answer_text(out, length, text);                                                              \
        return wk_leave(&call, answer);                                                                              \
    }

DEFINE_TEXT(nvmlDeviceGetSerial, serial, call.gpu->serial)

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter_any(&call, device, WK_CACHED, uuid != NULL);
    if (answer == NVML_SUCCESS)
        answer = wk_answer_text(
            uuid, length, call.instance == WK_ALL ? call.gpu->uuid : call.gpu->instances[call.instance].uuid);
    return wk_leave(&call, answer);
}

/* The gigabytes in an instance's name are its eighths of the GPU's, rounded, not those it can use: 1g.10gb of an
 * H100 with 80 GB has 9,984 MiB. */
static unsigned named_gigabytes(const struct wk_model *model, const struct wk_instance *instance)
{
    uint64_t whole_gib = (model->memory_mib + UINT64_C(1023)) / 1024;
    return (unsigned)((whole_gib * wk_eighths(model, instance) + 4) / 8);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length)
{
    struct wk_call call;
    char text[WK_NAME_SIZE + 48];
    nvmlReturn_t answer = wk_enter_any(&call, device, WK_CACHED, name != NULL);
    if (answer == NVML_SUCCESS && call.instance == WK_ALL)
        answer = wk_answer_text(name, length, call.gpu->model.name);
    else if (answer == NVML_SUCCESS) {
        const struct wk_instance *instance = &call.gpu->instances[call.instance];
        snprintf(text, sizeof text, "%s MIG %ug.%ugb", call.gpu->model.name, instance->slices,
                 named_gigabytes(&call.gpu->model, instance));
        answer = wk_answer_text(name, length, text);
    }
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter_any(&call, device, WK_CACHED, index != NULL);
    if (answer == NVML_SUCCESS)
        *index = call.instance == WK_ALL ? call.index : call.instance;
    return wk_leave(&call, answer);
}

WK_DEFINE_READ(nvmlDeviceGetMinorNumber, WK_CACHED, unsigned int, minorNumber, *minorNumber = call.minor)
WK_DEFINE_READ(nvmlDeviceGetBoardId, WK_CACHED, unsigned int, boardId, *boardId = call.gpu->pci_bus << 8)
WK_DEFINE_READ(nvmlDeviceGetBrand, WK_CACHED, nvmlBrandType_t, type,
               *type = (nvmlBrandType_t)call.gpu->model.brand)
WK_DEFINE_READ(nvmlDeviceGetArchitecture, WK_CACHED, nvmlDeviceArchitecture_t, arch,
               *arch = call.gpu->model.architecture)
WK_DEFINE_READ(nvmlDeviceGetPersistenceMode, WK_CACHED, nvmlEnableState_t, mode,
               *mode = (nvmlEnableState_t)call.gpu->persistence)
WK_DEFINE_READ_IF(nvmlDeviceGetPowerManagementMode, WK_CACHED, nvmlEnableState_t, mode,
                  !wk_lacks(&call, WK_LACKS_LIMIT), *mode = NVML_FEATURE_ENABLED)
WK_DEFINE_READ(nvmlDeviceGetComputeMode, WK_CACHED, nvmlComputeMode_t, mode, *mode = NVML_COMPUTEMODE_DEFAULT)
WK_DEFINE_READ(nvmlDeviceGetDisplayMode, WK_CACHED, nvmlEnableState_t, display, *display = NVML_FEATURE_DISABLED)
WK_DEFINE_READ(nvmlDeviceGetDisplayActive, WK_CACHED, nvmlEnableState_t, isActive, *isActive = NVML_FEATURE_DISABLED)
WK_DEFINE_READ(nvmlDeviceGetPowerSource, WK_CACHED, nvmlPowerSource_t, powerSource,
               *powerSource = NVML_POWER_SOURCE_AC)

/* The link between CPU and GPU on one module. */
#ifdef nvmlC2cModeInfo_v1
WK_DEFINE_READ_IF(nvmlDeviceGetC2cModeInfoV, WK_CACHED, nvmlC2cModeInfo_v1_t, c2cModeInfo,
                  call.gpu->model.architecture >= NVML_DEVICE_ARCH_HOPPER,
                  c2cModeInfo->isC2cEnabled = call.gpu->model.companion_mw > 0)
#endif

static nvmlReturn_t write_persistence(struct wk_call *call, nvmlEnableState_t mode)
{
    struct wk_change change;
    const struct wk_action action = {.kind = WK_SET_PERSISTENCE, .gpu = call->minor, .value = mode};
    if (!call->sim->writable)
        return NVML_ERROR_NO_PERMISSION;
    if (call->gpu->faults.set_answer != 0)
        return (nvmlReturn_t)call->gpu->faults.set_answer;
    if (call->gpu->faults.set_ignored)
        return NVML_SUCCESS;
    int error = wk_begin(call->sim, &change);
    if (error == 0) {
        wk_do(&change.state->node, change.state->gpus, 0, change.state->node.gpu_count, &action, change.now_ns);
        wk_commit(&change);
    }
    return wk_nvml_error(error);
}

nvmlReturn_t nvmlDeviceSetPersistenceMode(nvmlDevice_t device, nvmlEnableState_t mode)
{
    struct wk_call call;
    bool valid = mode == NVML_FEATURE_DISABLED || mode == NVML_FEATURE_ENABLED;
    nvmlReturn_t answer = wk_enter(&call, device, WK_SET, valid);
    if (answer == NVML_SUCCESS)
        answer = write_persistence(&call, mode);
    return wk_leave(&call, answer);
}

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

nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, nvmlEnableState_t *current, nvmlEnableState_t *pending)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_CACHED, current != NULL && pending != NULL);
    if (answer == NVML_SUCCESS && wk_lacks(&call, WK_LACKS_ECC))
        answer = NVML_ERROR_NOT_SUPPORTED;
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

/* By architecture, for all boards of one have the same. The link stays as it is when the GPU is idle. */
static unsigned link_generation(const struct wk_model *model)
{
    return model->architecture <= NVML_DEVICE_ARCH_TURING ? 3 : model->architecture <= NVML_DEVICE_ARCH_ADA ? 4 : 5;
}
#define LINK_WIDTH 16

WK_DEFINE_READ(nvmlDeviceGetMaxPcieLinkGeneration, WK_CACHED, unsigned int, maxLinkGen,
               *maxLinkGen = link_generation(&call.gpu->model))
WK_DEFINE_READ(nvmlDeviceGetCurrPcieLinkGeneration, WK_READ, unsigned int, currLinkGen,
               *currLinkGen = link_generation(&call.gpu->model))
WK_DEFINE_READ(nvmlDeviceGetMaxPcieLinkWidth, WK_CACHED, unsigned int, maxLinkWidth, *maxLinkWidth = LINK_WIDTH)
WK_DEFINE_READ(nvmlDeviceGetCurrPcieLinkWidth, WK_READ, unsigned int, currLinkWidth, *currLinkWidth = LINK_WIDTH)
WK_DEFINE_READ(nvmlDeviceGetPcieReplayCounter, WK_READ, unsigned int, value, *value = 0)

/* No load says what it moves. */
nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t device, nvmlPcieUtilCounter_t counter, unsigned int *value)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, value != NULL && counter < NVML_PCIE_UTIL_COUNT);
    if (answer == NVML_SUCCESS)
        *value = 0;
    return wk_leave(&call, answer);
}
