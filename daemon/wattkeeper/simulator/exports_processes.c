/* NVML's functions for the processes on a GPU, or on a MIG instance. They are what a person put there
 * (`wk_sim_set_processes`): all of them compute, none draws graphics or goes through MPS. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "exports.h"
#include "physics.h"

#define SAMPLE_US 100000u

unsigned long long wk_wall_us(void)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return (unsigned long long)time.tv_sec * 1000000 + (unsigned long long)time.tv_nsec / 1000;
}

static bool has_ended(const struct wk_process *process)
{
    return process->lives && kill((pid_t)process->pid, 0) != 0 && errno == ESRCH;
}

unsigned wk_list_processes(const struct wk_call *call, struct wk_process processes[WK_MAX_PROCESSES])
{
    unsigned count = 0;
    for (unsigned i = 0; i < call->gpu->process_count; i++) {
        const struct wk_process *process = &call->gpu->processes[i];
        if ((call->instance == WK_ALL || call->instance == process->instance) && !has_ended(process))
            processes[count++] = *process;
    }
    return count;
}

static unsigned long long memory_bytes(const struct wk_process *process)
{
    return (unsigned long long)process->memory_mib << 20;
}

static void write_v1(nvmlProcessInfo_v1_t *info, const struct wk_process *process)
{
    *info = (nvmlProcessInfo_v1_t){.pid = process->pid, .usedGpuMemory = memory_bytes(process)};
}

/* Headers differ in whether v3 has a type of its own. */
#define WRITE_V2(info, process)                                                                                      \
    do {                                                                                                             \
        *(info) = (__typeof__(*(info))){.pid = (process)->pid, .usedGpuMemory = memory_bytes(process)};              \
        (info)->gpuInstanceId = wk_gpu_instance_id((process)->instance);                                             \
        (info)->computeInstanceId = (process)->instance == WK_ALL ? WK_NO_INSTANCE : WK_COMPUTE_INSTANCE;            \
    } while (0)

/* Takes the caller's place for entries and answers whether all fit; `count` becomes how many there are. */
static nvmlReturn_t check_room(unsigned int *room, unsigned count, const void *entries)
{
    bool fits = count <= *room && (entries != NULL || count == 0);
    *room = count;
    return fits ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

/* nvml.h: a count of 0 asks for the size, and `infos` may be NULL then. */
#define DEFINE_PROCESSES(function, type, write)                                                                      \
    nvmlReturn_t function(nvmlDevice_t device, unsigned int *infoCount, type *infos)                                 \
    {                                                                                                                \
        struct wk_call call;                                                                                         \
        struct wk_process processes[WK_MAX_PROCESSES];                                                               \
        bool valid = infoCount != NULL && (infos != NULL || *infoCount == 0);                                        \
        nvmlReturn_t answer = wk_enter_any(&call, device, WK_READ, valid);                                           \
        if (answer == NVML_SUCCESS)                                                                                  \
            answer = check_room(infoCount, wk_list_processes(&call, processes), infos);                              \
        for (unsigned i = 0; answer == NVML_SUCCESS && i < *infoCount; i++)                                          \
            write(&infos[i], &processes[i]);                                                                         \
        return wk_leave(&call, answer);                                                                              \
    }

#define DEFINE_NO_PROCESSES(function, type)                                                                          \
    nvmlReturn_t function(nvmlDevice_t device, unsigned int *infoCount, type *infos)                                 \
    {                                                                                                                \
        (void)infos;                                                                                                 \
        struct wk_call call;                                                                                         \
        nvmlReturn_t answer = wk_enter_any(&call, device, WK_READ, infoCount != NULL);                               \
        if (answer == NVML_SUCCESS)                                                                                  \
            *infoCount = 0;                                                                                          \
        return wk_leave(&call, answer);                                                                              \
    }

DEFINE_PROCESSES(nvmlDeviceGetComputeRunningProcesses, nvmlProcessInfo_v1_t, write_v1)
DEFINE_PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, nvmlProcessInfo_v2_t, WRITE_V2)
DEFINE_PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, nvmlProcessInfo_t, WRITE_V2)
DEFINE_NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses, nvmlProcessInfo_v1_t)
DEFINE_NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2, nvmlProcessInfo_v2_t)
DEFINE_NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, nvmlProcessInfo_t)
DEFINE_NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses, nvmlProcessInfo_v1_t)
DEFINE_NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2, nvmlProcessInfo_v2_t)
DEFINE_NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, nvmlProcessInfo_t)

#ifdef nvmlProcessDetailList_v1
/* nvmlProcessMode_t, which some headers that declare the function lack. */
enum mode { MODE_COMPUTE = 0, MODE_ALL = 3 };

nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device, nvmlProcessDetailList_t *plist)
{
    struct wk_call call;
    struct wk_process processes[WK_MAX_PROCESSES];
    bool valid = plist != NULL && plist->version == nvmlProcessDetailList_v1 &&
                 plist->mode <= MODE_ALL && (plist->procArray != NULL || plist->numProcArrayEntries == 0);
    nvmlReturn_t answer = wk_enter_any(&call, device, WK_READ, valid);
    if (answer == NVML_SUCCESS && call.gpu->model.architecture < NVML_DEVICE_ARCH_HOPPER)
        answer = NVML_ERROR_NOT_SUPPORTED;
    if (answer == NVML_SUCCESS) {
        bool listed = plist->mode == MODE_COMPUTE || plist->mode == MODE_ALL;
        unsigned count = listed ? wk_list_processes(&call, processes) : 0;
        answer = check_room(&plist->numProcArrayEntries, count, plist->procArray);
    }
    for (unsigned i = 0; answer == NVML_SUCCESS && i < plist->numProcArrayEntries; i++)
        WRITE_V2(&plist->procArray[i], &processes[i]);
    return wk_leave(&call, answer);
}
#endif

/* One sample of each process that has used the GPU. */
struct use {
    unsigned long long stamp_us;
    unsigned count;
    nvmlProcessUtilizationSample_t samples[WK_MAX_PROCESSES];
};

static unsigned share(unsigned percent, uint32_t bp)
{
    return (percent * bp + 5000) / 10000;
}

/* NOT_SUPPORTED on a GPU in MIG mode, as nvml.h says of both functions; NOT_FOUND where nothing is newer. */
static nvmlReturn_t take_samples(const struct wk_call *call, unsigned long long last_seen_us, struct use *use)
{
    struct wk_process processes[WK_MAX_PROCESSES];
    struct wk_instant instant;
    if (wk_lacks(call, WK_LACKS_ACCOUNTED_USE) || call->gpu->mig)
        return NVML_ERROR_NOT_SUPPORTED;
    wk_look(call->gpu, call->now_ns, &instant);
    use->stamp_us = wk_wall_us();
    use->stamp_us -= use->stamp_us % SAMPLE_US;
    use->count = 0;
    unsigned count = use->stamp_us > last_seen_us ? wk_list_processes(call, processes) : 0;
    for (unsigned i = 0; i < count; i++) {
        unsigned sm = share(instant.use_percent, processes[i].use_bp);
        if (sm > 0)
            use->samples[use->count++] = (nvmlProcessUtilizationSample_t){
                .pid = processes[i].pid,
                .timeStamp = use->stamp_us,
                .smUtil = sm,
                .memUtil = share(instant.memory_use_percent, processes[i].use_bp),
            };
    }
    return use->count > 0 ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *utilization,
                                             unsigned int *processSamplesCount, unsigned long long lastSeenTimeStamp)
{
    struct wk_call call;
    struct use use;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, processSamplesCount != NULL);
    if (answer == NVML_SUCCESS)
        answer = take_samples(&call, lastSeenTimeStamp, &use);
    if (answer == NVML_SUCCESS)
        answer = check_room(processSamplesCount, use.count, utilization);
    if (answer == NVML_SUCCESS)
        memcpy(utilization, use.samples, use.count * sizeof use.samples[0]);
    return wk_leave(&call, answer);
}

#ifdef nvmlProcessesUtilizationInfo_v1
nvmlReturn_t nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t device,
                                                   nvmlProcessesUtilizationInfo_t *procesesUtilInfo)
{
    struct wk_call call;
    struct use use;
    nvmlReturn_t answer = wk_enter(&call, device, WK_READ, procesesUtilInfo != NULL);
    if (answer == NVML_SUCCESS && procesesUtilInfo->version != nvmlProcessesUtilizationInfo_v1)
        answer = NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (answer == NVML_SUCCESS)
        answer = take_samples(&call, procesesUtilInfo->lastSeenTimeStamp, &use);
    if (answer == NVML_SUCCESS)
        answer = check_room(&procesesUtilInfo->processSamplesCount, use.count, procesesUtilInfo->procUtilArray);
    for (unsigned i = 0; answer == NVML_SUCCESS && i < use.count; i++)
        procesesUtilInfo->procUtilArray[i] = (nvmlProcessUtilizationInfo_v1_t){
            .timeStamp = use.stamp_us,
            .pid = use.samples[i].pid,
            .smUtil = use.samples[i].smUtil,
            .memUtil = use.samples[i].memUtil,
        };
    return wk_leave(&call, answer);
}
#endif

/* The first word of a process's command line, or its short name where it has none, as a kernel thread. */
static nvmlReturn_t read_name(unsigned pid, char *out, unsigned int length)
{
    char path[64];
    ssize_t size = 0;
    for (unsigned i = 0; size == 0 && i < 2; i++) {
        snprintf(path, sizeof path, i == 0 ? "/proc/%u/cmdline" : "/proc/%u/comm", pid);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return errno == ENOENT ? NVML_ERROR_NOT_FOUND : wk_nvml_error(errno);
        size = read(fd, out, length - 1);
        close(fd);
    }
    if (size < 0)
        return errno == ESRCH ? NVML_ERROR_NOT_FOUND : NVML_ERROR_UNKNOWN;
    out[size] = '\0';
    out[strcspn(out, "\n")] = '\0';
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter_node(&call, name != NULL && length > 0);
    if (answer == NVML_SUCCESS)
        answer = read_name(pid, name, length);
    return wk_leave(&call, answer);
}
