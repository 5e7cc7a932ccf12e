#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "physics.h"

#define READ_ATTEMPTS 64
#define MAX_PLAUSIBLE_MW 100000000u /* 100 kW: keeps sums of damaged figures from overflowing */

static int join(char *out, size_t size, const char *folder, const char *name)
{
    int length = snprintf(out, size, "%s/%s", folder, name);
    return length < 0 || (size_t)length >= size ? ENAMETOOLONG : 0;
}

int wk_lock(const char *path, int operation)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    while (flock(fd, operation) != 0) {
        if (errno == EINTR)
            continue;
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

void wk_unlock(int lock)
{
    /* Unlocked by name, not by closing alone: a child forked meanwhile shares the open description. */
    flock(lock, LOCK_UN);
    close(lock);
}

/* Whether a text ends within its place and is such as clients can decode. */
static bool is_text(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '\0')
            return true;
        if (text[i] < ' ' || text[i] > '~')
            return false;
    }
    return false;
}

/* Whether a copied state can be worked with: a damaged one must not harm a client. */
static bool is_sound(const struct wk_state *state)
{
    if (state->gpu_count > WK_MAX_GPUS || state->clock_mode > WK_CLOCK_MANUAL ||
        state->profile > WK_PROFILE_DRIVER || !is_text(state->boot_id, sizeof state->boot_id))
        return false;
    unsigned seen = 0;
    for (unsigned i = 0; i < state->gpu_count; i++) {
        const struct wk_gpu *gpu = &state->gpus[i];
        const struct wk_model *model = &gpu->model;
        if (state->order[i] >= state->gpu_count || (seen & 1u << state->order[i]) != 0)
            return false;
        seen |= 1u << state->order[i];
        if (model->min_mw > model->default_mw || model->default_mw > model->max_mw ||
            model->max_mw > MAX_PLAUSIBLE_MW || model->idle_mw > model->peak_mw ||
            model->peak_mw > MAX_PLAUSIBLE_MW || model->peak_mw == 0 || gpu->load_bp > 10000 ||
            gpu->hang > 1 || gpu->lost > 1 || gpu->set_ignored > 1 || gpu->set_refused > 1)
            return false;
        if (!is_text(model->key, sizeof model->key) || !is_text(model->name, sizeof model->name) ||
            !is_text(gpu->uuid, sizeof gpu->uuid) || !is_text(gpu->serial, sizeof gpu->serial))
            return false;
    }
    return true;
}

int wk_create(const char *folder, const struct wk_state *initial, bool replace)
{
    char path[PATH_MAX], draft[PATH_MAX], lock[PATH_MAX], name[64];
    snprintf(name, sizeof name, ".state.%ld", (long)getpid());
    if (join(path, sizeof path, folder, "state") != 0 || join(draft, sizeof draft, folder, name) != 0 ||
        join(lock, sizeof lock, folder, "driver.lock") != 0)
        return ENAMETOOLONG;

    struct wk_file *file = calloc(1, sizeof *file);
    if (file == NULL)
        return ENOMEM;
    file->magic = WK_MAGIC;
    file->version = WK_VERSION;
    file->size = sizeof *file;
    file->slots[0] = *initial;

    /* Readable by all, as /dev/nvidia* is: every user may look, only the owner (and root) may change. */
    int error = 0;
    int lock_fd = open(lock, O_RDONLY | O_CREAT | O_CLOEXEC, 0644);
    if (lock_fd < 0 || fchmod(lock_fd, 0644) != 0)
        error = errno;
    unlink(draft);
    int fd = error != 0 ? -1 : open(draft, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (error == 0 && fd < 0)
        error = errno;
    if (error == 0 && (fchmod(fd, 0644) != 0 || write(fd, file, sizeof *file) != (ssize_t)sizeof *file))
        error = errno != 0 ? errno : EIO;
    if (error == 0 && (replace ? rename(draft, path) : link(draft, path)) != 0)
        error = errno;
    if (fd >= 0) {
        close(fd);
        unlink(draft);
    }
    if (lock_fd >= 0)
        close(lock_fd);
    free(file);
    return error;
}

static int map_file(struct wk_sim *sim)
{
    sim->fd = open(sim->path, O_RDWR | O_CLOEXEC);
    sim->writable = sim->fd >= 0;
    if (sim->fd < 0 && (errno == EACCES || errno == EPERM || errno == EROFS))
        sim->fd = open(sim->path, O_RDONLY | O_CLOEXEC);
    if (sim->fd < 0)
        return errno;
    struct stat status;
    if (fstat(sim->fd, &status) != 0)
        return errno;
    if (!S_ISREG(status.st_mode) || status.st_size != (off_t)sizeof(struct wk_file))
        return EBADMSG;
    sim->inode = status.st_ino;
    sim->device = status.st_dev;
    int protection = PROT_READ | (sim->writable ? PROT_WRITE : 0);
    void *mapping = mmap(NULL, sizeof(struct wk_file), protection, MAP_SHARED, sim->fd, 0);
    if (mapping == MAP_FAILED)
        return errno;
    sim->file = mapping;
    if (sim->file->magic != WK_MAGIC || sim->file->version != WK_VERSION ||
        sim->file->size != sizeof(struct wk_file))
        return EBADMSG;
    return 0;
}

int wk_open(const char *folder, struct wk_sim **out)
{
    struct wk_sim *sim = calloc(1, sizeof *sim);
    if (sim == NULL)
        return ENOMEM;
    sim->fd = -1;
    atomic_init(&sim->references, 1);
    int error = join(sim->path, sizeof sim->path, folder, "state");
    if (error == 0)
        error = join(sim->driver_lock, sizeof sim->driver_lock, folder, "driver.lock");
    if (error == 0)
        error = map_file(sim);
    struct wk_state state;
    uint64_t now_ns;
    if (error == 0)
        error = wk_read(sim, &state, &now_ns);
    if (error != 0) {
        wk_close(sim);
        return error;
    }
    *out = sim;
    return 0;
}

void wk_close(struct wk_sim *sim)
{
    if (atomic_fetch_sub(&sim->references, 1) != 1)
        return;
    if (sim->file != NULL)
        munmap(sim->file, sizeof *sim->file);
    if (sim->fd >= 0)
        close(sim->fd);
    free(sim);
}

/* Looked at before each use of the mapping: touching a page that was cut off would be a SIGBUS, and a file that
 * `--replace` has put aside is no longer anybody's truth. */
static int check_file(const struct wk_sim *sim)
{
    struct stat status;
    if (fstat(sim->fd, &status) != 0)
        return errno;
    if (status.st_nlink == 0)
        return ESTALE;
    return status.st_size == (off_t)sizeof(struct wk_file) ? 0 : EBADMSG;
}

/* The lock of the file that we have mapped, or the negative errno. */
static int lock_state(const struct wk_sim *sim, int operation)
{
    int lock = wk_lock(sim->path, operation);
    if (lock < 0)
        return -(errno == ENOENT ? ESTALE : errno);
    struct stat status;
    int error = fstat(lock, &status) != 0 ? errno : 0;
    if (error == 0 && (status.st_ino != sim->inode || status.st_dev != sim->device))
        error = ESTALE;
    if (error == 0)
        error = check_file(sim);
    if (error != 0) {
        wk_unlock(lock);
        return -error;
    }
    return lock;
}

/* Copies the published slot and reads its clock. */
static int copy_published(const struct wk_sim *sim, uint64_t sequence, struct wk_state *state)
{
    memcpy(state, &sim->file->slots[sequence / 2 % 2], sizeof *state);
    atomic_thread_fence(memory_order_acquire);
    return atomic_load(&sim->file->sequence) == sequence ? 0 : EAGAIN;
}

int wk_read(const struct wk_sim *sim, struct wk_state *state, uint64_t *now_ns)
{
    int error = check_file(sim);
    if (error != 0)
        return error;
    for (int attempt = 0; attempt < READ_ATTEMPTS; attempt++) {
        uint64_t sequence = atomic_load(&sim->file->sequence);
        if (sequence % 2 != 0 || copy_published(sim, sequence, state) != 0) {
            sched_yield();
            continue;
        }
        if (!is_sound(state))
            return EBADMSG;
        wk_adopt_boot(state);
        *now_ns = wk_now(state);
        /* A change takes its stamp after making the sequence odd. Still even, so no change has a stamp before
         * our time: without this, energy could step back when power falls. */
        if (atomic_load(&sim->file->sequence) == sequence)
            return 0;
    }
    /* A writer is busy, or died half-way and left the sequence odd: the lock tells, and keeps writers out. */
    int lock = lock_state(sim, LOCK_SH);
    if (lock < 0)
        return -lock;
    error = copy_published(sim, atomic_load(&sim->file->sequence), state);
    if (error == 0 && !is_sound(state))
        error = EBADMSG;
    if (error == 0) {
        wk_adopt_boot(state);
        *now_ns = wk_now(state);
    }
    wk_unlock(lock);
    return error == EAGAIN ? EBADMSG : error; /* changed under the lock: by nothing of ours */
}

int wk_begin(struct wk_sim *sim, struct wk_change *change)
{
    if (!sim->writable)
        return EACCES;
    change->sim = sim;
    change->lock = lock_state(sim, LOCK_EX);
    if (change->lock < 0)
        return -change->lock;
    change->sequence = atomic_load(&sim->file->sequence) | 1u;
    atomic_store(&sim->file->sequence, change->sequence);
    memcpy(&change->state, &sim->file->slots[change->sequence / 2 % 2], sizeof change->state);
    if (!is_sound(&change->state)) {
        wk_abandon(change);
        return EBADMSG;
    }
    wk_adopt_boot(&change->state);
    change->now_ns = wk_now(&change->state);
    for (unsigned minor = 0; minor < change->state.gpu_count; minor++)
        wk_settle(&change->state.gpus[minor], change->now_ns);
    return 0;
}

void wk_commit(struct wk_change *change)
{
    struct wk_file *file = change->sim->file;
    memcpy(&file->slots[(change->sequence / 2 + 1) % 2], &change->state, sizeof change->state);
    atomic_store(&file->sequence, change->sequence + 1);
    wk_unlock(change->lock);
}

void wk_abandon(struct wk_change *change)
{
    atomic_store(&change->sim->file->sequence, change->sequence - 1);
    wk_unlock(change->lock);
}
