#include <errno.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <time.h>

#include "session.h"

nvmlReturn_t wk_nvml_error(int error)
{
    switch (error) {
    case 0:
        return NVML_SUCCESS;
    case EACCES:
    case EPERM:
        return NVML_ERROR_NO_PERMISSION;
    case ENOMEM:
        return NVML_ERROR_MEMORY;
    default:
        return NVML_ERROR_UNKNOWN;
    }
}

void wk_sleep(long nanoseconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += nanoseconds / 1000000000;
    until.tv_nsec += nanoseconds % 1000000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    int slack = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        continue;
    if (slack > 0)
        prctl(PR_SET_TIMERSLACK, (unsigned long)slack, 0, 0, 0);
}

static uint64_t monotonic_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Takes a call's GPU, or (`minor` WK_ALL) the node alone. */
static nvmlReturn_t take_state(struct wk_call *call, unsigned minor)
{
    bool whole = minor == WK_ALL;
    int error = wk_read(call->sim, whole ? 0 : minor, &call->node, whole ? NULL : &call->own, &call->now_ns);
    if (error != 0)
        return error == ENODEV ? NVML_ERROR_INVALID_ARGUMENT : wk_nvml_error(error);
    return call->node.driver_generation == call->generation ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
}

nvmlReturn_t wk_take_gpu(struct wk_call *call, unsigned minor)
{
    return take_state(call, minor);
}

/* Blocks for as long as the GPU or the library hangs; the call then goes on, late. */
static nvmlReturn_t sit_out_hang(struct wk_call *call, unsigned minor)
{
    uint64_t start_ns = monotonic_ns();
    for (;;) {
        bool of_node = minor == WK_ALL || call->node.faults.hang;
        const struct wk_faults *faults = of_node ? &call->node.faults : &call->own.faults;
        if (!faults->hang ||
            (faults->hang_ms != 0 && monotonic_ns() - start_ns >= faults->hang_ms * UINT64_C(1000000)))
            return NVML_SUCCESS;
        wk_sleep(HANG_POLL_NS);
        nvmlReturn_t answer = take_state(call, minor);
        if (answer != NVML_SUCCESS)
            return answer;
    }
}

static nvmlReturn_t pass_latency(struct wk_call *call, unsigned minor, enum wk_cost cost)
{
    uint64_t slow_us = call->node.faults.slow_us + (minor == WK_ALL ? 0 : (uint64_t)call->own.faults.slow_us);
    bool driver = call->node.profile == WK_PROFILE_DRIVER && cost != WK_CACHED;
    if (slow_us > 0)
        wk_sleep((long)(slow_us * 1000));
    if (driver) {
        call->driver_lock = wk_lock(call->sim->driver_lock, LOCK_EX);
        if (call->driver_lock < 0)
            return NVML_ERROR_UNKNOWN;
        wk_sleep(cost == WK_SET ? 10000000 : 100000);
    }
    return slow_us > 0 || driver ? take_state(call, minor) : NVML_SUCCESS;
}

/* Everything that stands between a client and its answer. */
static nvmlReturn_t enter(struct wk_call *call, unsigned minor, enum wk_cost cost, bool valid)
{
    nvmlReturn_t answer = take_state(call, minor);
    if (answer == NVML_SUCCESS)
        answer = sit_out_hang(call, minor);
    if (answer == NVML_SUCCESS && call->node.faults.answer != 0)
        return (nvmlReturn_t)call->node.faults.answer;
    if (answer == NVML_SUCCESS && minor != WK_ALL && call->own.faults.answer != 0)
        return (nvmlReturn_t)call->own.faults.answer;
    if (answer == NVML_SUCCESS && !valid)
        return NVML_ERROR_INVALID_ARGUMENT;
    return answer == NVML_SUCCESS ? pass_latency(call, minor, cost) : answer;
}

static nvmlReturn_t begin_call(struct wk_call *call)
{
    call->driver_lock = -1;
    call->gpu = NULL;
    call->sim = wk_hold_session(&call->generation);
    return call->sim == NULL ? NVML_ERROR_UNINITIALIZED : NVML_SUCCESS;
}

nvmlReturn_t wk_enter_any(struct wk_call *call, nvmlDevice_t device, enum wk_cost cost, bool valid)
{
    nvmlReturn_t answer = begin_call(call);
    if (answer == NVML_SUCCESS && !wk_find_device(device, &call->minor, &call->instance))
        answer = NVML_ERROR_INVALID_ARGUMENT;
    if (answer == NVML_SUCCESS)
        answer = enter(call, call->minor, cost, valid);
    if (answer == NVML_SUCCESS && call->instance != WK_ALL && call->instance >= call->own.instance_count)
        answer = NVML_ERROR_INVALID_ARGUMENT;
    if (answer != NVML_SUCCESS)
        return answer;
    call->gpu = &call->own;
    for (unsigned index = 0; index < call->node.gpu_count; index++)
        if (call->node.order[index] == call->minor)
            call->index = index;
    return NVML_SUCCESS;
}

nvmlReturn_t wk_enter(struct wk_call *call, nvmlDevice_t device, enum wk_cost cost, bool valid)
{
    nvmlReturn_t answer = wk_enter_any(call, device, cost, valid);
    return answer == NVML_SUCCESS && call->instance != WK_ALL ? NVML_ERROR_NOT_SUPPORTED : answer;
}

nvmlReturn_t wk_enter_node(struct wk_call *call, bool valid)
{
    nvmlReturn_t answer = begin_call(call);
    return answer == NVML_SUCCESS ? enter(call, WK_ALL, WK_CACHED, valid) : answer;
}

nvmlReturn_t wk_leave(struct wk_call *call, nvmlReturn_t answer)
{
    if (call->driver_lock >= 0)
        wk_unlock(call->driver_lock);
    if (call->sim != NULL)
        wk_close(call->sim);
    return answer;
}

nvmlReturn_t wk_answer_text(char *out, unsigned int length, const char *text)
{
    size_t size = strlen(text) + 1;
    if (size > length)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    memcpy(out, text, size);
    return NVML_SUCCESS;
}
