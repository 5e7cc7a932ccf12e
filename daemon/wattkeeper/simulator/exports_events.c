/* NVML's events: XIDs, and that a GPU was lost. Nobody can send them, for there is no process that simulates: whoever
 * waits looks at the state every few milliseconds.
 *
 * Sets are entries of a table, so that any other pointer is told apart without touching it. They are atomic rather
 * than locked: a process that is forked while one thread registers must not find a lock held for ever. */
#include <time.h>

#include "exports.h"

#define SETS 64u
#define POLL_NS 5000000
#define ECC_EVENTS (nvmlEventTypeSingleBitEccError | nvmlEventTypeDoubleBitEccError)

struct nvmlEventSet_st {
    atomic_bool used;
    _Atomic uint64_t types[WK_MAX_GPUS]; /* registered, by minor number */
    _Atomic uint64_t seen[WK_MAX_GPUS];  /* how many XIDs of it were delivered, or were there before */
};
static struct nvmlEventSet_st sets[SETS];

static bool is_set(nvmlEventSet_t set)
{
    uintptr_t offset = (uintptr_t)set - (uintptr_t)sets;
    return offset < sizeof sets && offset % sizeof sets[0] == 0 && atomic_load(&set->used);
}

static void release(struct nvmlEventSet_st *set)
{
    for (unsigned minor = 0; minor < WK_MAX_GPUS; minor++)
        atomic_store(&set->types[minor], 0);
    atomic_store(&set->used, false);
}

void wk_release_event_sets(void)
{
    for (unsigned i = 0; i < SETS; i++)
        release(&sets[i]);
}

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter_node(&call, set != NULL);
    if (answer == NVML_SUCCESS) {
        answer = NVML_ERROR_MEMORY;
        for (unsigned i = 0; answer != NVML_SUCCESS && i < SETS; i++) {
            if (atomic_exchange(&sets[i].used, true))
                continue;
            *set = &sets[i];
            answer = NVML_SUCCESS;
        }
    }
    return wk_leave(&call, answer);
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter_node(&call, is_set(set));
    if (answer == NVML_SUCCESS)
        release(set);
    return wk_leave(&call, answer);
}

/* Of ECC events there are none as yet, but clients insist on registering them. */
static unsigned long long supported_types(const struct wk_call *call)
{
    return nvmlEventTypeXidCriticalError | (wk_lacks(call, WK_LACKS_ECC) ? 0 : ECC_EVENTS);
}

WK_DEFINE_READ(nvmlDeviceGetSupportedEventTypes, WK_CACHED, unsigned long long, eventTypes,
               *eventTypes = supported_types(&call))

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long eventTypes, nvmlEventSet_t set)
{
    struct wk_call call;
    bool valid = is_set(set) && eventTypes != 0 && (eventTypes & ~nvmlEventTypeAll) == 0;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, valid);
    if (answer == NVML_SUCCESS && (eventTypes & ~supported_types(&call)) != 0)
        answer = NVML_ERROR_NOT_SUPPORTED;
    if (answer == NVML_SUCCESS) {
        uint64_t xid = nvmlEventTypeXidCriticalError;
        if ((atomic_load(&set->types[call.minor]) & xid) == 0) /* what happened before is no event */
            atomic_store(&set->seen[call.minor], call.gpu->xid_count);
        atomic_fetch_or(&set->types[call.minor], eventTypes);
    }
    return wk_leave(&call, answer);
}

/* Takes the next XID of a GPU that nobody has taken from this set. Only so many are kept: older ones are lost. */
static bool take_xid(struct nvmlEventSet_st *set, unsigned minor, const struct wk_gpu *gpu, unsigned long long *xid)
{
    uint64_t seen = atomic_load(&set->seen[minor]), next;
    do {
        next = seen > gpu->xid_count ? 0 : seen; /* it began to count anew */
        if (gpu->xid_count - next > WK_XIDS)
            next = gpu->xid_count - WK_XIDS;
        if (next == gpu->xid_count)
            return false;
    } while (!atomic_compare_exchange_strong(&set->seen[minor], &seen, next + 1));
    *xid = gpu->xids[next % WK_XIDS];
    return true;
}

/* What happened: SUCCESS, GPU_IS_LOST, or TIMEOUT for nothing. */
static nvmlReturn_t look_for_event(struct wk_call *call, nvmlEventSet_t set, nvmlEventData_t *data)
{
    for (unsigned minor = 0; minor < call->node.gpu_count; minor++) {
        uint64_t types = atomic_load(&set->types[minor]);
        nvmlReturn_t answer = types == 0 ? NVML_SUCCESS : wk_take_gpu(call, minor);
        if (types == 0 || answer != NVML_SUCCESS) {
            if (answer != NVML_SUCCESS)
                return answer;
            continue;
        }
        if ((types & nvmlEventTypeXidCriticalError) != 0 && take_xid(set, minor, &call->own, &data->eventData)) {
            data->device = wk_handle(minor, WK_ALL);
            data->eventType = nvmlEventTypeXidCriticalError;
            return NVML_SUCCESS;
        }
        if (call->own.faults.answer == NVML_ERROR_GPU_IS_LOST)
            return NVML_ERROR_GPU_IS_LOST;
    }
    return NVML_ERROR_TIMEOUT;
}

static nvmlReturn_t look_once(nvmlEventSet_t set, nvmlEventData_t *data, bool valid)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter_node(&call, valid && is_set(set));
    if (answer == NVML_SUCCESS)
        answer = look_for_event(&call, set, data);
    return wk_leave(&call, answer);
}

static uint64_t monotonic_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* The timeout is of real time, whatever the GPUs' clock does. */
static nvmlReturn_t wait_for_event(nvmlEventSet_t set, nvmlEventData_t *data, bool valid, unsigned int timeout_ms)
{
    uint64_t until_ns = monotonic_ns() + timeout_ms * UINT64_C(1000000);
    for (;;) {
        nvmlReturn_t answer = look_once(set, data, valid);
        uint64_t now_ns = monotonic_ns();
        if (answer != NVML_ERROR_TIMEOUT || now_ns >= until_ns)
            return answer;
        uint64_t left_ns = until_ns - now_ns;
        wk_sleep((long)(left_ns < POLL_NS ? left_ns : POLL_NS));
    }
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeoutms)
{
    nvmlEventData_t event = {.gpuInstanceId = WK_NO_INSTANCE, .computeInstanceId = WK_NO_INSTANCE};
    nvmlReturn_t answer = wait_for_event(set, &event, data != NULL, timeoutms);
    if (answer == NVML_SUCCESS)
        *data = event;
    return answer;
}

/* Its callers' struct ends before the instance ids. */
nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeoutms)
{
    nvmlEventData_t event = {0};
    nvmlReturn_t answer = wait_for_event(set, &event, data != NULL, timeoutms);
    if (answer == NVML_SUCCESS) {
        data->device = event.device;
        data->eventType = event.eventType;
        data->eventData = event.eventData;
    }
    return answer;
}
