#include "session.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "clients.h"

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
    wk_tell_event(session, WK_ON_OPEN, WK_ALL);
    nvmlReturn_t answer;
    while ((answer = wk_nvml_error(wk_read(session, 0, &node, NULL, &now_ns))) == NVML_SUCCESS && node.faults.hang &&
           node.faults.hang_ms == 0)
        wk_sleep(HANG_POLL_NS);
    if (answer == NVML_SUCCESS && node.faults.hang)
        wk_sleep((long)(node.faults.hang_ms * UINT64_C(1000000)));
    if (answer == NVML_SUCCESS && node.faults.answer != 0)
        answer = (nvmlReturn_t)node.faults.answer;
    if (answer == NVML_SUCCESS) {
        wk_become_client(session, &node);
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
            wk_release_event_sets();
            wk_leave_as_client(session);
            wk_close(session);
            session = NULL;
        }
    }
    unlock_session();
    return answer;
}

struct wk_sim *wk_hold_session(uint64_t *generation)
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

bool wk_find_device(nvmlDevice_t device, unsigned *minor, unsigned *instance)
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
