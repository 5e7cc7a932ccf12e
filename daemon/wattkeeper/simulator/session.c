#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "actions.h"
#define HANG_POLL_NS 2000000
#define HANDLES_PER_GPU (1 + WK_MAX_INSTANCES)

/* A handle is the address of its own entry, so that any other pointer is told apart without touching it. */
struct nvmlDevice_st {
    char unused;
};
static struct nvmlDevice_st handles[WK_MAX_GPUS * HANDLES_PER_GPU];

static pthread_mutex_t session_mutex = PTHREAD_MUTEX_INITIALIZER;
static unsigned initialisations;
static struct wk_sim *session;
static uint64_t session_generation; /* of the driver, when the session was opened */
static int client = -1;             /* the shared lock that says so for as long as this process is a client */

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

/* Whoever comes while nobody is there, or leaves as the last, finds the driver without clients: what it kept for
 * GPUs without persistence mode is lost then. The lock is what tells, for it is gone with a client that was killed. */
static void forget_unless_persistent(struct wk_sim *sim)
{
    struct wk_change change;
    struct wk_node node;
    struct wk_gpu gpu;
    uint64_t now_ns;
    bool forgets = false;
    for (unsigned minor = 0; wk_read(sim, minor, &node, &gpu, &now_ns) == 0; minor++)
        forgets = forgets || !gpu.persistence;
    if (!forgets || wk_begin(sim, &change) != 0)
        return;
    for (unsigned minor = 0; minor < change.state->node.gpu_count; minor++) {
        const struct wk_action reset = {.kind = WK_RESET_GPU, .gpu = minor};
        if (!change.state->gpus[minor].persistence)
            wk_do(&change.state->node, change.state->gpus, 0, change.state->node.gpu_count, &reset, change.now_ns);
    }
    wk_commit(&change);
}

static bool is_alone(int lock)
{
    return lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) == 0;
}

static void become_client(struct wk_sim *sim)
{
    client = open(sim->client_lock, O_RDONLY | O_CLOEXEC);
    if (is_alone(client))
        forget_unless_persistent(sim);
    while (client >= 0 && flock(client, LOCK_SH) != 0 && errno == EINTR)
        continue;
}

static void leave_as_client(struct wk_sim *sim)
{
    if (is_alone(client))
        forget_unless_persistent(sim);
    if (client >= 0)
        wk_unlock(client);
    client = -1;
}

static void note_event(struct wk_sim *sim, enum wk_event event, unsigned minor)
{
    struct wk_node node;
    uint64_t now_ns;
    bool awaited = false;
    if (!sim->writable || wk_read(sim, 0, &node, NULL, &now_ns) != 0)
        return;
    for (unsigned i = 0; i < node.action_count; i++)
        awaited = awaited || node.actions[i].event == event;
    struct wk_change change;
    if (!awaited || wk_begin(sim, &change) != 0)
        return;
    wk_note_event(&change.state->node, event, minor, change.now_ns);
    wk_catch_up(&change.state->node, change.state->gpus, 0, change.state->node.gpu_count, change.now_ns);
    wk_commit(&change);
}

void wk_note_set_limit(struct wk_call *call)
{
    note_event(call->sim, WK_ON_SET_LIMIT, call->minor);
}

/* The first initialisation of this process. */
static nvmlReturn_t open_session(void)
{
    const char *folder = getenv("WATTKEEPER_SIM_STATE");
    int error = folder == NULL || *folder == '\0' ? ENOENT : wk_open(folder, &session);
    if (error == ENOENT)
        return NVML_ERROR_DRIVER_NOT_LOADED;
    if (error == EBADMSG)
        fprintf(stderr,
                "wattkeeper simulator: %s/state is damaged or of another version; create it anew with "
                "`wattkeeper sim env --state %s --replace`\n",
                folder, folder);
    if (error != 0)
        return wk_nvml_error(error);
    struct wk_node node;
    uint64_t now_ns;
    note_event(session, WK_ON_OPEN, WK_ALL);
    nvmlReturn_t answer = wk_nvml_error(wk_read(session, 0, &node, NULL, &now_ns));
    if (answer == NVML_SUCCESS && node.faults.answer != 0)
        answer = (nvmlReturn_t)node.faults.answer;
    if (answer == NVML_SUCCESS) {
        become_client(session);
        session_generation = node.driver_generation;
        return NVML_SUCCESS;
    }
    wk_close(session);
    session = NULL;
    return answer;
}

nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    lock_session();
    nvmlReturn_t answer = initialisations == 0 ? open_session() : NVML_SUCCESS;
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
            leave_as_client(session);
            wk_close(session);
            session = NULL;
        }
    }
    unlock_session();
    return answer;
}

static struct wk_sim *hold_session(uint64_t *generation)
{
    lock_session();
    struct wk_sim *sim = session;
    *generation = session_generation;
    if (sim != NULL)
        atomic_fetch_add(&sim->references, 1);
    unlock_session();
    return sim;
}

nvmlDevice_t wk_handle(unsigned minor, unsigned instance)
{
    return &handles[minor * HANDLES_PER_GPU + (instance == WK_ALL ? 0 : 1 + instance)];
}

static bool find_device(nvmlDevice_t device, unsigned *minor, unsigned *instance)
{
    uintptr_t start = (uintptr_t)handles;
    uintptr_t address = (uintptr_t)device;
    if (address < start || address >= start + sizeof handles)
        return false;
    unsigned place = (unsigned)((address - start) / sizeof handles[0]);
    *minor = place / HANDLES_PER_GPU;
    *instance = place % HANDLES_PER_GPU == 0 ? WK_ALL : place % HANDLES_PER_GPU - 1;
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
        sleep_ns(HANG_POLL_NS);
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
        sleep_ns((long)(slow_us * 1000));
    if (driver) {
        call->driver_lock = wk_lock(call->sim->driver_lock, LOCK_EX);
        if (call->driver_lock < 0)
            return NVML_ERROR_UNKNOWN;
        sleep_ns(cost == WK_SET ? 10000000 : 100000);
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
    call->sim = hold_session(&call->generation);
    return call->sim == NULL ? NVML_ERROR_UNINITIALIZED : NVML_SUCCESS;
}

nvmlReturn_t wk_enter_any(struct wk_call *call, nvmlDevice_t device, enum wk_cost cost, bool valid)
{
    nvmlReturn_t answer = begin_call(call);
    if (answer == NVML_SUCCESS && !find_device(device, &call->minor, &call->instance))
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
