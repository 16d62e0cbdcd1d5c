/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device-mapper by libdevmapper's task interface, without udev cookies.
 *
 * Happy path: a task per ioctl; the library makes and removes the nodes in /dev/mapper itself,
 * since it has no cookie to leave that to udev, and dm_check_node proves that a fresh name leads to
 * the fresh device. Failure modes: an ioctl that the kernel refuses: -errno with the name; a
 * suspend or resume that waits for I/O which never ends: a timer signal breaks the wait, the kernel
 * undoes the suspend, and the caller gets LUNAR_E_TIMEOUT with nothing changed.
 *
 * Threads: the library keeps its list of pending nodes in a static variable, so create and remove
 * run under a lock. Suspend, resume and queries touch no nodes and run outside it: a LUN that hangs
 * one volume must not hold up the others.
 */
#include "agent/dm.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <libdevmapper.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/helper.h"
#include "base/log.h"

/* Longer than any I/O of a healthy array, shorter than an operator's patience; sanlock's I/O
 * time-out is 10 s. */
#define SUSPEND_DEADLINE_MS 30000
/* The signal repeats at this pace, since one that comes just before the ioctl interrupts nothing.
 */
#define SUSPEND_NUDGE_MS 100
/* A closed device may be held a moment longer by a scan that saw it appear. */
#define REMOVE_DEADLINE_MS 3000
#define DEADLINE_SIGNAL    (SIGRTMIN + 3)

static pthread_mutex_t node_lock = PTHREAD_MUTEX_INITIALIZER;

/* Set while this thread asks about a device that may well not be there. */
static _Thread_local bool library_quiet;

static void on_deadline(int signal_number)
{
    (void)signal_number; /* its work is done by interrupting the ioctl */
}

/* The library's own messages: one line each, only the bad ones; our errors say the rest. */
static void on_library_log(int level, const char *file, int line, int dm_errno, const char *format,
                           ...)
{
    char text[512];
    va_list args;

    (void)file;
    (void)line;
    (void)dm_errno;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if ((level & 7) <= 4 && !library_quiet)
        log_debug("dm_library text=\"%s\"", text);
}

static void setup_once(void)
{
    struct sigaction action = {.sa_handler = on_deadline}; /* no SA_RESTART: that is the point */

    sigaction(DEADLINE_SIGNAL, &action, NULL);
    dm_log_with_errno_init(on_library_log);
    dm_udev_set_sync_support(0);
    dm_udev_set_checking(0);
    dm_hold_control_dev(1);
    char version[64];
    dm_driver_version(version, sizeof version); /* opens the control device before threads do */
}

void dm_setup(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, setup_once);
}

/* ---- a deadline for one ioctl of this thread ---- */

static int deadline_arm(timer_t *timer, int first_ms)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = DEADLINE_SIGNAL};
    struct itimerspec when = {
        .it_value = {.tv_sec = first_ms / 1000, .tv_nsec = first_ms % 1000 * 1000000L},
        .it_interval = {.tv_nsec = SUSPEND_NUDGE_MS * 1000000L}};
    sigset_t set;

    event._sigev_un._tid = gettid();
    sigemptyset(&set);
    sigaddset(&set, DEADLINE_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    if (timer_create(CLOCK_MONOTONIC, &event, timer) < 0)
        return -errno;
    timer_settime(*timer, 0, &when, NULL);
    return 0;
}

/* ---- tasks ---- */

static struct dm_task *task_new(int type, const char *name, struct error *err)
{
    struct dm_task *task = dm_task_create(type);

    if (task && dm_task_set_name(task, name))
        return task;
    if (task)
        dm_task_destroy(task);
    error_set(err, -ENOMEM, "cannot make a device-mapper task for %s", name);
    return NULL;
}

/* Runs and destroys the task: 0 or -errno with "WHAT NAME: why". */
static int task_run(struct dm_task *task, const char *what, const char *name, struct error *err)
{
    int rc = 0;

    if (!dm_task_run(task)) {
        rc = -dm_task_get_errno(task);
        if (rc == 0)
            rc = -EIO;
        error_set(err, rc, "cannot %s device-mapper device %s: %s", what, name, strerror(-rc));
    }
    dm_task_destroy(task);
    return rc;
}

static int task_run_deadline(struct dm_task *task, const char *what, const char *name,
                             int deadline_ms, struct error *err)
{
    timer_t timer;
    int64_t deadline = clock_ms() + deadline_ms;
    int rc = deadline_arm(&timer, deadline_ms);

    if (rc < 0) {
        dm_task_destroy(task);
        return error_set(err, rc, "cannot arm a timer: %s", strerror(-rc));
    }
    rc = task_run(task, what, name, err);
    timer_delete(timer);
    if (rc == -EINTR && clock_left(deadline) == 0)
        return error_set(err, LUNAR_E_TIMEOUT,
                         "cannot %s %s: its I/O did not end within %d ms; look at the LUN's paths",
                         what, name, deadline_ms);
    return rc;
}

static int add_targets(struct dm_task *task, const struct dm_segment *segments, uint32_t n,
                       struct error *err)
{
    uint64_t start = 0;
    char params[128];

    for (uint32_t i = 0; i < n; i++) {
        const struct dm_segment *s = &segments[i];
        if (s->length == 0 || s->length % DM_SECTOR || s->device_offset % DM_SECTOR)
            return error_set(err, LUNAR_E_INVALID,
                             "segment %" PRIu32 " is empty or not in whole sectors", i);
        snprintf(params, sizeof params, "%s %" PRIu64, s->device, s->device_offset / DM_SECTOR);
        bool linear = s->device[0] != '\0';
        if (!dm_task_add_target(task, start / DM_SECTOR, s->length / DM_SECTOR,
                                linear ? "linear" : "error", linear ? params : ""))
            return error_set(err, -ENOMEM, "out of memory for a device-mapper table");
        start += s->length;
    }
    return 0;
}

int dm_info(const char *name, struct dm_info_short *ret, struct error *err)
{
    struct dm_info info;
    uint64_t start, length;
    char *type, *params;

    memset(ret, 0, sizeof *ret);
    struct dm_task *task = task_new(DM_DEVICE_TABLE, name, err);
    if (!task)
        return -ENOMEM;
    dm_task_no_open_count(task); /* only spares the library a warning; the kernel tells it anyway */
    library_quiet = true;
    bool done = dm_task_run(task);
    library_quiet = false;
    if (!done) {
        int code = dm_task_get_errno(task);
        dm_task_destroy(task);
        if (code == ENXIO || code == ENODEV)
            return 0;
        return error_set(err, code ? -code : -EIO, "cannot query device-mapper device %s: %s", name,
                         strerror(code));
    }
    if (dm_task_get_info(task, &info) && info.exists) {
        ret->exists = true;
        ret->suspended = info.suspended;
        ret->live_table = info.live_table;
        ret->inactive_table = info.inactive_table;
        ret->open_count = (uint32_t)info.open_count;
        ret->major = info.major;
        ret->minor = info.minor;
        void *next = NULL;
        ret->linear = info.live_table;
        do {
            next = dm_get_next_target(task, next, &start, &length, &type, &params);
            if (type) {
                ret->size = (start + length) * DM_SECTOR;
                ret->linear &= strcmp(type, "linear") == 0;
            }
        } while (next);
    }
    dm_task_destroy(task);
    return 0;
}

int dm_path(const char *name, char ret[32], struct error *err)
{
    struct dm_info_short info;
    int rc = dm_info(name, &info, err);

    if (rc < 0)
        return rc;
    if (!info.exists)
        return error_set(err, LUNAR_E_NOT_FOUND, "there is no device-mapper device %s", name);
    snprintf(ret, 32, "/dev/dm-%u", info.minor);
    return 0;
}

/* A target as a segment: "MAJOR:MINOR SECTOR" of a linear one. */
static void table_line(uint64_t length, const char *type, const char *params,
                       struct dm_segment *ret)
{
    uint64_t sector = 0;

    *ret = (struct dm_segment){.length = length * DM_SECTOR};
    if (strcmp(type, "linear") == 0 && params &&
        sscanf(params, "%63s %" SCNu64, ret->device, &sector) == 2)
        ret->device_offset = sector * DM_SECTOR;
    else
        ret->device[0] = '\0';
}

static void read_table(struct dm_task *task, struct dm_segment **ret, uint32_t *ret_n)
{
    uint64_t start, length;
    char *type, *params;
    void *next = NULL;

    do {
        next = dm_get_next_target(task, next, &start, &length, &type, &params);
        if (!type)
            continue;
        *ret = reallocarray(*ret, *ret_n + 1, sizeof **ret);
        if (!*ret)
            abort();
        table_line(length, type, params, &(*ret)[(*ret_n)++]);
    } while (next);
}

int dm_table(const char *name, struct dm_segment **ret, uint32_t *ret_n, struct error *err)
{
    struct dm_info info = {0};
    struct dm_task *task = task_new(DM_DEVICE_TABLE, name, err);

    *ret = NULL;
    *ret_n = 0;
    if (!task)
        return -ENOMEM;
    library_quiet = true;
    bool done = dm_task_run(task) && dm_task_get_info(task, &info);
    library_quiet = false;
    int code = done ? 0 : dm_task_get_errno(task);
    if (done && info.exists)
        read_table(task, ret, ret_n);
    dm_task_destroy(task);
    if (!done && code != ENXIO && code != ENODEV)
        return error_set(err, code ? -code : -EIO, "cannot read the table of %s: %s", name,
                         strerror(code));
    return *ret_n > 0
               ? 0
               : error_set(err, LUNAR_E_NOT_FOUND, "device-mapper device %s has no table", name);
}

/* The name in /dev/mapper must lead to this very device: a stale link of udev's would put a
 * volume's writes elsewhere. */
static int check_node(const char *name, struct error *err)
{
    struct dm_info_short info;
    struct stat st;
    char path[DM_NAME_SIZE + 32];

    int rc = dm_info(name, &info, err);
    if (rc < 0)
        return rc;
    snprintf(path, sizeof path, "%s/%s", dm_dir(), name);
    dev_t want = makedev(info.major, info.minor);
    if (stat(path, &st) == 0 && S_ISBLK(st.st_mode) && st.st_rdev == want)
        return 0;
    unlink(path);
    if (mknod(path, S_IFBLK | 0600, want) < 0 && errno != EEXIST)
        return error_set(err, -errno, "cannot make %s: %s", path, strerror(errno));
    if (stat(path, &st) < 0 || st.st_rdev != want)
        return error_set(err, -EIO, "%s does not lead to device %u:%u", path, info.major,
                         info.minor);
    return 0;
}

int dm_create(const char *name, const char *uuid, const struct dm_segment *segments, uint32_t n,
              bool read_only, struct error *err)
{
    struct dm_info_short info;

    assert(strncmp(uuid, "LUNAR-", 6) == 0);
    int rc = dm_info(name, &info, err);
    if (rc < 0)
        return rc;
    if (info.exists)
        return error_set(err, -EEXIST, "device-mapper device %s exists already", name);
    struct dm_task *task = task_new(DM_DEVICE_CREATE, name, err);
    if (!task)
        return -ENOMEM;
    dm_task_set_uuid(task, uuid);
    if (read_only)
        dm_task_set_ro(task);
    rc = add_targets(task, segments, n, err);
    if (rc < 0) {
        dm_task_destroy(task);
        return rc;
    }
    pthread_mutex_lock(&node_lock);
    rc = task_run(task, "create", name, err);
    dm_task_update_nodes();
    bool made = rc == 0;
    if (made)
        rc = check_node(name, err);
    pthread_mutex_unlock(&node_lock);
    if (made && rc < 0)
        dm_remove(name, NULL); /* a device without a node is of no use, and must not stay mapped */
    return rc;
}

int dm_load(const char *name, const struct dm_segment *segments, uint32_t n, bool read_only,
            struct error *err)
{
    struct dm_task *task = task_new(DM_DEVICE_RELOAD, name, err);

    if (!task)
        return -ENOMEM;
    if (read_only)
        dm_task_set_ro(task);
    int rc = add_targets(task, segments, n, err);
    if (rc < 0) {
        dm_task_destroy(task);
        return rc;
    }
    return task_run(task, "load a table into", name, err);
}

int dm_suspend(const char *name, bool flush, struct error *err)
{
    return dm_suspend_within(name, flush, SUSPEND_DEADLINE_MS, err);
}

int dm_freeze_within(const char *name, int deadline_ms, struct error *err)
{
    struct dm_task *task = task_new(DM_DEVICE_SUSPEND, name, err);

    return task ? task_run_deadline(task, "freeze", name, deadline_ms, err) : -ENOMEM;
}

int dm_suspend_within(const char *name, bool flush, int deadline_ms, struct error *err)
{
    struct dm_task *task = task_new(DM_DEVICE_SUSPEND, name, err);

    if (!task)
        return -ENOMEM;
    dm_task_skip_lockfs(task);
    if (!flush)
        dm_task_no_flush(task);
    return task_run_deadline(task, "suspend", name, deadline_ms, err);
}

/* A resume that swaps tables on a live device waits for its I/O too. */
int dm_resume(const char *name, struct error *err)
{
    struct dm_task *task = task_new(DM_DEVICE_RESUME, name, err);

    if (!task)
        return -ENOMEM;
    dm_task_skip_lockfs(task);
    return task_run_deadline(task, "resume", name, SUSPEND_DEADLINE_MS, err);
}

int dm_clear(const char *name, struct error *err)
{
    struct dm_task *task = task_new(DM_DEVICE_CLEAR, name, err);

    return task ? task_run(task, "clear the inactive table of", name, err) : -ENOMEM;
}

static int remove_once(const char *name, bool deferred, struct error *err)
{
    struct dm_task *task = task_new(DM_DEVICE_REMOVE, name, err);

    if (!task)
        return -ENOMEM;
    if (deferred)
        dm_task_deferred_remove(task);
    pthread_mutex_lock(&node_lock);
    int rc = task_run(task, "remove", name, err);
    dm_task_update_nodes();
    pthread_mutex_unlock(&node_lock);
    return rc == -ENXIO ? 0 : rc;
}

/* A node without its device (somebody died between the two, or another tool removed it) would lead
 * to whoever gets the number next. */
static void remove_stale_node(const char *name)
{
    char path[DM_NAME_SIZE + 32];

    snprintf(path, sizeof path, "%s/%s", dm_dir(), name);
    unlink(path);
}

int dm_remove(const char *name, struct error *err)
{
    int64_t deadline = clock_ms() + REMOVE_DEADLINE_MS;
    struct dm_info_short info;

    for (;;) {
        int rc = dm_info(name, &info, err);
        if (rc == 0 && !info.exists)
            remove_stale_node(name);
        if (rc < 0 || !info.exists)
            return rc;
        rc = remove_once(name, false, err);
        if (rc != -EBUSY)
            return rc;
        if (clock_left(deadline) == 0)
            return error_set(err, LUNAR_E_IN_USE, "%s is still open by somebody", name);
        usleep(20000);
    }
}

int dm_remove_deferred(const char *name, struct error *err)
{
    struct dm_info_short info;
    int rc = dm_info(name, &info, err);

    return rc < 0 || !info.exists ? rc : remove_once(name, true, err);
}

int dm_wipe(const char *name, struct error *err)
{
    struct dm_info_short info;
    int rc = dm_info(name, &info, err);

    if (rc < 0 || !info.exists)
        return rc;
    if (info.size == 0) /* never had a table: what was loaded but not resumed must not come alive */
        return info.inactive_table ? dm_clear(name, err) : 0;
    struct dm_segment nothing = {.length = info.size};
    rc = dm_load(name, &nothing, 1, false, err);
    if (rc == 0 && !info.suspended)
        rc = dm_suspend(name, false, err);
    if (rc == 0)
        rc = dm_resume(name, err);
    return rc;
}

int dm_wipe_and_remove(const char *name, struct error *err)
{
    int rc = dm_wipe(name, err);

    return rc < 0 ? rc : dm_remove(name, err);
}

/* Calls back when the device's uuid has the prefix. A device that vanished meanwhile is none; one
 * that cannot be asked is an error: who tears down by this list must not miss it (SAFETY 10). */
static int list_one(const char *name, const char *prefix,
                    void (*each)(void *data, const char *name, const char *uuid), void *data,
                    struct error *err)
{
    struct dm_info info;
    struct dm_task *task = task_new(DM_DEVICE_INFO, name, err);
    int code = 0;

    if (!task)
        return -ENOMEM;
    if (!dm_task_run(task)) {
        code = dm_task_get_errno(task);
        code = code == ENXIO || code == ENODEV ? 0 : code ? code : EIO;
    } else if (dm_task_get_info(task, &info) && info.exists) {
        const char *uuid = dm_task_get_uuid(task);
        if (uuid && strncmp(uuid, "LUNAR-", 6) == 0 &&
            strncmp(uuid + 6, prefix, strlen(prefix)) == 0)
            each(data, name, uuid);
    }
    dm_task_destroy(task);
    return code == 0 ? 0
                     : error_set(err, -code, "cannot query device-mapper device %s: %s", name,
                                 strerror(code));
}

int dm_list(const char *uuid_prefix, void (*each)(void *data, const char *name, const char *uuid),
            void *data, struct error *err)
{
    struct dm_task *task = dm_task_create(DM_DEVICE_LIST);

    if (!task)
        return error_set(err, -ENOMEM, "cannot make a device-mapper task");
    if (!dm_task_run(task)) {
        int code = dm_task_get_errno(task);
        dm_task_destroy(task);
        return error_set(err, code ? -code : -EIO,
                         "cannot list device-mapper devices: %s; is the dm_mod module loaded?",
                         strerror(code));
    }
    const struct dm_names *names = dm_task_get_names(task);
    int rc = 0;
    if (names && names->dev) {
        uint32_t next = 0;
        do {
            names = (const struct dm_names *)(const void *)((const char *)names + next);
            next = names->next;
            rc = list_one(names->name, uuid_prefix, each, data, err);
        } while (rc == 0 && next);
    }
    dm_task_destroy(task);
    return rc;
}
