#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actions.h"
#include "physics.h"
#include "sound.h"

#define READ_ATTEMPTS 64

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

static int make_lock(const char *folder, const char *name)
{
    char path[PATH_MAX];
    if (join(path, sizeof path, folder, name) != 0)
        return ENAMETOOLONG;
    int fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0644);
    int error = fd < 0 || fchmod(fd, 0644) != 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
    return error;
}

int wk_create(const char *folder, const struct wk_state *initial, bool replace)
{
    char path[PATH_MAX], draft[PATH_MAX], name[64];
    snprintf(name, sizeof name, ".state.%ld", (long)getpid());
    if (join(path, sizeof path, folder, "state") != 0 || join(draft, sizeof draft, folder, name) != 0)
        return ENAMETOOLONG;

    struct wk_file *file = calloc(1, sizeof *file);
    if (file == NULL)
        return ENOMEM;
    file->magic = WK_MAGIC;
    file->version = WK_VERSION;
    file->size = sizeof *file;
    file->slots[0] = *initial;

    /* Readable by all, as /dev/nvidia* is: every user may look, only the owner (and root) may change. */
    int error = make_lock(folder, "driver.lock");
    if (error == 0)
        error = make_lock(folder, "client.lock");
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
        error = join(sim->client_lock, sizeof sim->client_lock, folder, "client.lock");
    if (error == 0)
        error = map_file(sim);
    struct wk_node node;
    uint64_t now_ns;
    if (error == 0)
        error = wk_read(sim, 0, &node, NULL, &now_ns);
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

/* What a reader wants a copy of: the node, and `count` GPUs from minor number `first` on. */
struct copy {
    struct wk_node *node;
    struct wk_gpu *gpus;
    unsigned first, count;
};

/* Only what is used of the two long lists. The counts may be torn or damaged here: bounded, and checked later. */
static void copy_node(struct wk_node *to, const struct wk_node *from)
{
    size_t head = offsetof(struct wk_node, actions);
    memcpy(to, from, head);
    if (to->action_count <= WK_MAX_ACTIONS)
        memcpy(to->actions, from->actions, to->action_count * sizeof to->actions[0]);
}

static void copy_gpu(struct wk_gpu *to, const struct wk_gpu *from)
{
    size_t head = offsetof(struct wk_gpu, segments);
    memcpy(to, from, head);
    if (to->load.count <= WK_MAX_SEGMENTS)
        memcpy(to->segments, from->segments, to->load.count * sizeof to->segments[0]);
}

/* Copies from the published slot; EAGAIN where it was changed meanwhile. */
static int copy_published(const struct wk_sim *sim, uint64_t sequence, const struct copy *copy)
{
    const struct wk_state *slot = &sim->file->slots[sequence / 2 % 2];
    copy_node(copy->node, &slot->node);
    for (unsigned i = 0; i < copy->count; i++)
        copy_gpu(&copy->gpus[i], &slot->gpus[copy->first + i]);
    atomic_thread_fence(memory_order_acquire);
    return atomic_load(&sim->file->sequence) == sequence ? 0 : EAGAIN;
}

/* Checks a copy and brings it up to date. A pure function, so that readers who cannot write agree with writers. */
static int bring_up_to_date(const struct copy *copy, uint64_t *now_ns)
{
    if (!wk_is_sound_node(copy->node))
        return EBADMSG;
    unsigned there = copy->node->gpu_count > copy->first ? copy->node->gpu_count - copy->first : 0;
    unsigned count = copy->count < there ? copy->count : there;
    for (unsigned i = 0; i < count; i++)
        if (!wk_is_sound_gpu(&copy->gpus[i]))
            return EBADMSG;
    wk_adopt_boot(copy->node, copy->gpus, count);
    *now_ns = wk_now(copy->node);
    wk_catch_up(copy->node, copy->gpus, copy->first, count, *now_ns);
    return copy->count == 1 && count == 0 ? ENODEV : 0;
}

static int read_copy(const struct wk_sim *sim, const struct copy *copy, uint64_t *now_ns)
{
    int error = check_file(sim);
    if (error != 0)
        return error;
    for (int attempt = 0; attempt < READ_ATTEMPTS; attempt++) {
        uint64_t sequence = atomic_load(&sim->file->sequence);
        if (sequence % 2 != 0 || copy_published(sim, sequence, copy) != 0) {
            sched_yield();
            continue;
        }
        error = bring_up_to_date(copy, now_ns);
        /* A change takes its stamp after making the sequence odd. Still even, so no change has a stamp before
         * our time: without this, energy could step back when power falls. */
        if (error == EBADMSG || atomic_load(&sim->file->sequence) == sequence)
            return error;
    }
    /* A writer is busy, or died half-way and left the sequence odd: the lock tells, and keeps writers out. */
    int lock = lock_state(sim, LOCK_SH);
    if (lock < 0)
        return -lock;
    error = copy_published(sim, atomic_load(&sim->file->sequence), copy);
    if (error == 0)
        error = bring_up_to_date(copy, now_ns);
    wk_unlock(lock);
    return error == EAGAIN ? EBADMSG : error; /* changed under the lock: by nothing of ours */
}

int wk_read(const struct wk_sim *sim, unsigned minor, struct wk_node *node, struct wk_gpu *gpu, uint64_t *now_ns)
{
    if (minor >= WK_MAX_GPUS)
        return ENODEV;
    struct copy copy = {.node = node, .gpus = gpu, .first = minor, .count = gpu != NULL};
    return read_copy(sim, &copy, now_ns);
}

int wk_read_all(const struct wk_sim *sim, struct wk_state *state, uint64_t *now_ns)
{
    struct copy copy = {.node = &state->node, .gpus = state->gpus, .first = 0, .count = WK_MAX_GPUS};
    return read_copy(sim, &copy, now_ns);
}

int wk_begin(struct wk_sim *sim, struct wk_change *change)
{
    if (!sim->writable)
        return EACCES;
    change->sim = sim;
    change->state = malloc(sizeof *change->state);
    if (change->state == NULL)
        return ENOMEM;
    change->lock = lock_state(sim, LOCK_EX);
    if (change->lock < 0) {
        free(change->state);
        return -change->lock;
    }
    change->sequence = atomic_load(&sim->file->sequence) | 1u;
    atomic_store(&sim->file->sequence, change->sequence);
    memcpy(change->state, &sim->file->slots[change->sequence / 2 % 2], sizeof *change->state);
    struct copy copy = {.node = &change->state->node, .gpus = change->state->gpus, .count = WK_MAX_GPUS};
    int error = bring_up_to_date(&copy, &change->now_ns);
    if (error != 0)
        wk_abandon(change);
    return error;
}

void wk_commit(struct wk_change *change)
{
    struct wk_file *file = change->sim->file;
    memcpy(&file->slots[(change->sequence / 2 + 1) % 2], change->state, sizeof *change->state);
    atomic_store(&file->sequence, change->sequence + 1);
    wk_unlock(change->lock);
    free(change->state);
}

void wk_abandon(struct wk_change *change)
{
    atomic_store(&change->sim->file->sequence, change->sequence - 1);
    wk_unlock(change->lock);
    free(change->state);
}
