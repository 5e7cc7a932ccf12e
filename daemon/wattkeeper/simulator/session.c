#include "session.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "physics.h"

#define HANG_POLL_NS 2000000

/* A handle is the address of its own entry, so that any other pointer is told apart without touching it. */
struct nvmlDevice_st {
    char unused;
};
static struct nvmlDevice_st handles[WK_MAX_GPUS];

static pthread_mutex_t session_mutex = PTHREAD_MUTEX_INITIALIZER;
static unsigned initialisations;
static struct wk_sim *session;

/* A process forked while a thread holds the mutex would find it locked for ever. */
static void lock_session(void)
{
    pthread_mutex_lock(&session_mutex);
}

static void unlock_session(void)
{
    pthread_mutex_unlock(&session_mutex);
}

__attribute__((constructor)) static void prepare_for_forks(void)
{
    pthread_atfork(lock_session, unlock_session, unlock_session);
}

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

nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    const char *folder = getenv("WATTKEEPER_SIM_STATE");
    lock_session();
    nvmlReturn_t answer = NVML_SUCCESS;
    if (initialisations == 0) {
        int error = folder == NULL || *folder == '\0' ? ENOENT : wk_open(folder, &session);
        if (error == ENOENT)
            answer = NVML_ERROR_DRIVER_NOT_LOADED;
        else if (error != 0) {
            answer = wk_nvml_error(error);
            if (error == EBADMSG)
                fprintf(stderr,
                        "wattkeeper simulator: %s/state is damaged or of another version; create it anew with "
                        "`wattkeeper sim env --state %s --replace`\n",
                        folder, folder);
        }
    }
    if (answer == NVML_SUCCESS)
        initialisations++;
    unlock_session();
    return answer;
}

nvmlReturn_t nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}

nvmlReturn_t nvmlInit(void)
{
    return nvmlInitWithFlags(0);
}

nvmlReturn_t nvmlShutdown(void)
{
    nvmlReturn_t answer = NVML_ERROR_UNINITIALIZED;
    lock_session();
    if (initialisations > 0) {
        answer = NVML_SUCCESS;
        if (--initialisations == 0) {
            wk_close(session);
            session = NULL;
        }
    }
    unlock_session();
    return answer;
}

static struct wk_sim *hold_session(void)
{
    lock_session();
    struct wk_sim *sim = session;
    if (sim != NULL)
        atomic_fetch_add(&sim->references, 1);
    unlock_session();
    return sim;
}

nvmlDevice_t wk_handle(unsigned minor)
{
    return &handles[minor];
}

static bool find_minor(nvmlDevice_t device, unsigned *minor)
{
    uintptr_t start = (uintptr_t)handles;
    uintptr_t address = (uintptr_t)device;
    if (address < start || address >= start + sizeof handles)
        return false;
    *minor = (unsigned)((address - start) / sizeof handles[0]);
    return true;
}

static void sleep_ns(long nanoseconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += nanoseconds;
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

static nvmlReturn_t take_state(struct wk_call *call)
{
    nvmlReturn_t answer = wk_nvml_error(wk_read(call->sim, &call->state, &call->now_ns));
    if (answer == NVML_SUCCESS && call->minor >= call->state.gpu_count)
        return NVML_ERROR_INVALID_ARGUMENT;
    return answer;
}

/* Blocks for as long as the GPU hangs; the call then goes on, late. */
static nvmlReturn_t sit_out_hang(struct wk_call *call)
{
    uint64_t start_ns = monotonic_ns();
    nvmlReturn_t answer = NVML_SUCCESS;
    for (;;) {
        const struct wk_gpu *gpu = &call->state.gpus[call->minor];
        if (!gpu->hang || (gpu->hang_ms != 0 && monotonic_ns() - start_ns >= gpu->hang_ms * UINT64_C(1000000)))
            return NVML_SUCCESS;
        sleep_ns(HANG_POLL_NS);
        answer = take_state(call);
        if (answer != NVML_SUCCESS)
            return answer;
    }
}

static nvmlReturn_t pass_latency(struct wk_call *call, enum wk_cost cost)
{
    if (call->state.profile != WK_PROFILE_DRIVER || cost == WK_CACHED)
        return NVML_SUCCESS;
    call->driver_lock = wk_lock(call->sim->driver_lock, LOCK_EX);
    if (call->driver_lock < 0)
        return NVML_ERROR_UNKNOWN;
    sleep_ns(cost == WK_SET ? 10000000 : 100000);
    return take_state(call);
}

nvmlReturn_t wk_enter(struct wk_call *call, nvmlDevice_t device, enum wk_cost cost, bool valid)
{
    call->driver_lock = -1;
    call->sim = hold_session();
    if (call->sim == NULL)
        return NVML_ERROR_UNINITIALIZED;
    if (!find_minor(device, &call->minor))
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t answer = take_state(call);
    if (answer == NVML_SUCCESS)
        answer = sit_out_hang(call);
    if (answer == NVML_SUCCESS && call->state.gpus[call->minor].lost)
        return NVML_ERROR_GPU_IS_LOST;
    if (answer == NVML_SUCCESS && !valid)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (answer == NVML_SUCCESS)
        answer = pass_latency(call, cost);
    if (answer != NVML_SUCCESS)
        return answer;
    wk_settle(&call->state.gpus[call->minor], call->now_ns);
    call->gpu = &call->state.gpus[call->minor];
    for (unsigned index = 0; index < call->state.gpu_count; index++)
        if (call->state.order[index] == call->minor)
            call->index = index;
    return NVML_SUCCESS;
}

nvmlReturn_t wk_enter_node(struct wk_call *call, bool valid)
{
    call->driver_lock = -1;
    call->sim = hold_session();
    if (call->sim == NULL)
        return NVML_ERROR_UNINITIALIZED;
    if (!valid)
        return NVML_ERROR_INVALID_ARGUMENT;
    return wk_nvml_error(wk_read(call->sim, &call->state, &call->now_ns));
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
