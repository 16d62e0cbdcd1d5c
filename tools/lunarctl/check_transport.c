/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How soon an I/O on a dead path comes back as an error.
 *
 * A node that loses the LUN fences itself at 8N without a reset only if what it had in flight comes
 * back until then: the error table is loaded at once, but the kernel waits for every I/O below it.
 * So each layer between the LUN and the wire is asked how long it holds on to an I/O: the wire
 * (iSCSI, FC, NVMe over fabrics), SCSI's error handling, and multipath, which adds its queueing on
 * top of its slowest path. Up to 6N is well, up to 8N is a warning, more is a failure: safe all the
 * same, but such a node is reset by its watchdog instead of fencing itself.
 *
 * Happy path: the device's place in sysfs names the transport, the transport's class has the
 * settings. Failure modes: a transport that is not known is a warning and says so; an attribute
 * that this kernel does not have is left out of the sum.
 */
#include "check.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NEVER (-1L) /* an I/O that is never given up */
/* Of the kernel where sysfs does not tell: keep-alive of NVMe over fabrics. */
#define NVME_KEEP_ALIVE_S 5
/* multipath-tools' own polling_interval. */
#define MULTIPATH_POLLING_S 5

/* Where the block device is in sysfs, below root; false if it is not there. */
static bool place_of(const struct check *check, const char *name, char ret[PATH_MAX])
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/sys/class/block/%s", check->root, name);
    return realpath(path, ret) != NULL;
}

/* The component of `place` that begins with `prefix` and goes on with a digit. */
static bool component(const char *place, const char *prefix, char ret[64])
{
    size_t len = strlen(prefix);
    for (const char *p = strchr(place, '/'); p; p = strchr(p + 1, '/')) {
        if (strncmp(p + 1, prefix, len) != 0 || p[1 + len] < '0' || p[1 + len] > '9')
            continue;
        snprintf(ret, 64, "%.*s", (int)strcspn(p + 1, "/"), p + 1);
        return true;
    }
    return false;
}

/* Adds the finding about a sum of seconds; `seconds` may be NEVER. */
static struct check_finding *judge(struct check *check, const char *what, const char *name,
                                   long seconds)
{
    int well = check->timeouts.warn_s, last = check->timeouts.fail_s;
    enum check_level level = seconds == NEVER || seconds > last ? CHECK_LEVEL_FAIL
                             : seconds > well                   ? CHECK_LEVEL_WARN
                                                                : CHECK_LEVEL_OK;
    struct check_finding *f = check_add(check, level, "%s (%s)", what, name);
    snprintf(f->bound, sizeof f->bound, "at most %d s (6N), never over %d s (8N)", well, last);
    return f;
}

static bool is_well(const struct check_finding *f)
{
    return f->level == CHECK_LEVEL_OK;
}

/* --- iSCSI --- */

static long iscsi(struct check *check, const char *name, const char *session)
{
    long recovery = 0, interval = 0, timeout = 0;
    int n = check->timeouts.io_timeout_s;

    check_number(check, &recovery, NULL, "/sys/class/iscsi_session/%s/recovery_tmo", session);
    const char *number = session + strlen("session");
    check_number(check, &interval, NULL, "/sys/class/iscsi_connection/connection%s:0/recv_tmo",
                 number);
    check_number(check, &timeout, NULL, "/sys/class/iscsi_connection/connection%s:0/ping_tmo",
                 number);
    bool never = recovery < 0 || interval <= 0 || timeout <= 0;
    long sum = never ? NEVER : interval + timeout + recovery;
    char what[64];
    snprintf(what, sizeof what, "iSCSI %s", session);
    struct check_finding *f = judge(check, what, name, sum);
    if (never)
        snprintf(f->value, sizeof f->value, "noop %ld + %ld s, replacement %ld s: never", interval,
                 timeout, recovery);
    else
        snprintf(f->value, sizeof f->value, "noop %ld + %ld s, replacement %ld s: %ld s", interval,
                 timeout, recovery, sum);
    if (!is_well(f))
        snprintf(f->advice, sizeof f->advice,
                 "in /etc/iscsi/iscsid.conf, for the node record with iscsiadm -m node -o update, "
                 "and log in anew: node.conn[0].timeo.noop_out_interval = %d, "
                 "node.conn[0].timeo.noop_out_timeout = %d, "
                 "node.session.timeo.replacement_timeout = %d",
                 n > 5 ? 5 : n, n > 5 ? 5 : n, 2 * n);
    return sum;
}

/* --- Fibre Channel --- */

static long fibre_channel(struct check *check, const char *name, const char *rport)
{
    long fast = 0, loss = 0;
    char word[16] = "";
    int has_fast =
        check_number(check, &fast, word, "/sys/class/fc_remote_ports/%s/fast_io_fail_tmo", rport);
    int has_loss =
        check_number(check, &loss, NULL, "/sys/class/fc_remote_ports/%s/dev_loss_tmo", rport);
    /* Without fast_io_fail_tmo an I/O is held until the port is given up. */
    long sum = has_fast == 1 ? fast : has_loss == 1 ? loss : NEVER;
    char what[64];
    snprintf(what, sizeof what, "FC %s", rport);
    struct check_finding *f = judge(check, what, name, sum);
    if (has_fast == 1)
        snprintf(word, sizeof word, "%ld s", fast);
    snprintf(f->value, sizeof f->value, "fast_io_fail_tmo %s, dev_loss_tmo %ld s",
             has_fast < 0 ? "not there" : word, loss);
    if (!is_well(f))
        snprintf(f->advice, sizeof f->advice,
                 "with multipath: fast_io_fail_tmo %d in the defaults section of "
                 "/etc/multipath.conf, then multipathd reconfigure; without: echo %d > "
                 "/sys/class/fc_remote_ports/%s/fast_io_fail_tmo, by a udev rule for every port",
                 2 * check->timeouts.io_timeout_s, 2 * check->timeouts.io_timeout_s, rport);
    return sum;
}

/* --- NVMe over fabrics --- */

static long nvme_controller(struct check *check, const char *name, const char *controller)
{
    long fast = 0, loss = 0, keep_alive = NVME_KEEP_ALIVE_S;
    char transport[32] = "", what[64];
    const char *at = "/sys/class/nvme";

    check_read(check, transport, sizeof transport, "%s/%s/transport", at, controller);
    snprintf(what, sizeof what, "NVMe %s %s", transport, controller);
    if (strcmp(transport, "pcie") == 0 || strcmp(transport, "loop") == 0) {
        struct check_finding *local = check_add(check, CHECK_LEVEL_WARN, "%s (%s)", what, name);
        snprintf(local->value, sizeof local->value, "a controller of this machine alone");
        snprintf(local->advice, sizeof local->advice,
                 "a pool's LUN is one that other nodes reach, too: is this the right device?");
        return 0;
    }
    int has_fast = check_number(check, &fast, NULL, "%s/%s/fast_io_fail_tmo", at, controller);
    int has_loss = check_number(check, &loss, NULL, "%s/%s/ctrl_loss_tmo", at, controller);
    if (check_number(check, &keep_alive, NULL, "%s/%s/kato", at, controller) != 1 ||
        keep_alive <= 0)
        keep_alive = NVME_KEEP_ALIVE_S;
    long hold = has_fast == 1 && fast >= 0 ? fast : has_loss == 1 && loss >= 0 ? loss : NEVER;
    long sum = hold == NEVER ? NEVER : keep_alive + hold;
    struct check_finding *f = judge(check, what, name, sum);
    if (sum == NEVER)
        snprintf(f->value, sizeof f->value, "fast_io_fail_tmo off, ctrl_loss_tmo off: never");
    else
        snprintf(f->value, sizeof f->value, "keep-alive %ld s, %s %ld s: %ld s", keep_alive,
                 has_fast == 1 && fast >= 0 ? "fast_io_fail_tmo" : "ctrl_loss_tmo", hold, sum);
    if (!is_well(f))
        snprintf(f->advice, sizeof f->advice,
                 "connect with nvme connect --keep-alive-tmo=%d --fast_io_fail_tmo=%d; for a "
                 "controller that is connected: echo %d > /sys/class/nvme/%s/fast_io_fail_tmo",
                 check->timeouts.io_timeout_s > 5 ? 5 : check->timeouts.io_timeout_s,
                 2 * check->timeouts.io_timeout_s, 2 * check->timeouts.io_timeout_s, controller);
    return sum;
}

static long slower(long a, long b)
{
    return a == NEVER || b == NEVER ? NEVER : a > b ? a : b;
}

/* With native multipath the disk hangs on a subsystem that links to its controllers. */
static long nvme_subsystem(struct check *check, const char *name, const char *subsystem)
{
    char path[PATH_MAX];
    long slowest = 0;
    struct dirent *entry;

    snprintf(path, sizeof path, "%s/sys/class/nvme-subsystem/%s", check->root, subsystem);
    DIR *dir = opendir(path);
    while (dir && (entry = readdir(dir)) != NULL)
        if (strncmp(entry->d_name, "nvme", 4) == 0 &&
            strspn(entry->d_name + 4, "0123456789") == strlen(entry->d_name + 4))
            slowest = slower(slowest, nvme_controller(check, name, entry->d_name));
    if (dir)
        closedir(dir);
    return slowest;
}

/* --- SCSI --- */

/* The array answers nothing although its path lives: only SCSI's own time-outs end that. */
static void scsi_commands(struct check *check, const char *name, const char *place)
{
    char host[64], word[16] = "";
    long command = 0, deadline = 0;

    if (check_number(check, &command, NULL, "/sys/class/block/%s/device/timeout", name) != 1)
        return;
    int has_deadline =
        component(place, "host", host)
            ? check_number(check, &deadline, word, "/sys/class/scsi_host/%s/eh_deadline", host)
            : -1;
    bool well = has_deadline == 1 && command + deadline <= check->timeouts.fail_s;
    struct check_finding *f =
        check_add(check, well ? CHECK_LEVEL_OK : CHECK_LEVEL_WARN, "SCSI commands (%s)", name);
    snprintf(f->bound, sizeof f->bound, "together at most %d s (8N)", check->timeouts.fail_s);
    if (has_deadline == 1)
        snprintf(f->value, sizeof f->value, "timeout %ld s, eh_deadline %ld s", command, deadline);
    else
        snprintf(f->value, sizeof f->value, "timeout %ld s, eh_deadline off", command);
    if (!well)
        snprintf(f->advice, sizeof f->advice,
                 "an array that hangs with its paths alive ends in a reset of this node; to give "
                 "up sooner: echo %d > /sys/class/block/%s/device/timeout; echo %d > "
                 "/sys/class/scsi_host/%s/eh_deadline, by a udev rule",
                 2 * check->timeouts.io_timeout_s, name, 2 * check->timeouts.io_timeout_s,
                 has_deadline >= 0 ? host : "hostN");
}

static long unknown(struct check *check, const char *name, const char *place)
{
    bool virtual_disk = strstr(place, "/virtio") != NULL;
    struct check_finding *f = check_add(check, CHECK_LEVEL_WARN, "%s (%s)",
                                        virtual_disk ? "virtio disk" : "transport", name);
    snprintf(f->value, sizeof f->value, "%s",
             virtual_disk ? "no time-outs in this machine" : "not known to this check");
    snprintf(f->bound, sizeof f->bound, "at most %d s (6N)", check->timeouts.warn_s);
    snprintf(f->advice, sizeof f->advice,
             "%s: see that an I/O on a dead path ends within %d s, or the watchdog resets this "
             "node when it loses the LUN under load",
             virtual_disk ? "the hypervisor decides when its I/O fails"
                          : "look at the transport's own settings",
             check->timeouts.warn_s);
    return 0;
}

static long check_path(struct check *check, const char *name)
{
    char place[PATH_MAX], found[64];

    if (!place_of(check, name, place)) {
        struct check_finding *f = check_add(check, CHECK_LEVEL_FAIL, "device %s", name);
        snprintf(f->advice, sizeof f->advice, "there is no such block device on this machine");
        return 0;
    }
    scsi_commands(check, name, place);
    if (component(place, "session", found))
        return iscsi(check, name, found);
    if (component(place, "rport-", found))
        return fibre_channel(check, name, found);
    if (component(place, "nvme-subsys", found))
        return nvme_subsystem(check, name, found);
    if (strncmp(name, "nvme", 4) == 0 && component(place, "nvme", found))
        return nvme_controller(check, name, found);
    return unknown(check, name, place);
}

/* --- what stands on others --- */

long check_paths_of(struct check *check, const char *name)
{
    char path[PATH_MAX];
    long slowest = 0;
    struct dirent *entry;

    snprintf(path, sizeof path, "%s/sys/class/block/%s/slaves", check->root, name);
    DIR *dir = opendir(path);
    while (dir && (entry = readdir(dir)) != NULL)
        if (entry->d_name[0] != '.')
            slowest = slower(slowest, check_path(check, entry->d_name));
    if (dir)
        closedir(dir);
    return slowest;
}

/* "dm-3 12 chk" -> 12; NEVER: it queues for ever or multipathd does not say. */
static long retries_of(const char *maps, const char *name)
{
    size_t len = strlen(name);
    for (const char *line = maps; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        if (strncmp(line, name, len) != 0 || line[len] != ' ')
            continue;
        const char *value = line + len + strspn(line + len, " ");
        if (strncmp(value, "off", 3) == 0)
            return 0;
        char *end;
        long n = strtol(value, &end, 10);
        return end != value && n >= 0 ? n : NEVER;
    }
    return NEVER;
}

static long polling_interval(const char *config)
{
    for (const char *p = config; (p = strstr(p, "polling_interval")) != NULL; p++) {
        if (p != config && p[-1] == '_') /* max_polling_interval */
            continue;
        p += strcspn(p, "\"0123456789\n");
        long n = strtol(p + (*p == '"'), NULL, 10);
        return n > 0 ? n : MULTIPATH_POLLING_S;
    }
    return MULTIPATH_POLLING_S;
}

/* Seconds that the map queues after its last path went; NEVER. */
static long queueing(struct check *check, const char *name, const char *map, char *text,
                     size_t text_size)
{
    const char *const table[] = {"dmsetup", "table", map, NULL};
    const char *const maps[] = {"multipathd", "show", "maps", "raw", "format", "%d %Q", NULL};
    const char *const config[] = {"multipathd", "show", "config", "local", NULL};

    if (!check->run(table, text, text_size))
        return NEVER;
    if (!strstr(text, "queue_if_no_path"))
        return 0;
    long retries = check->run(maps, text, text_size) ? retries_of(text, name) : NEVER;
    if (retries <= 0)
        return retries;
    return retries *
           (check->run(config, text, text_size) ? polling_interval(text) : MULTIPATH_POLLING_S);
}

void check_multipath(struct check *check, const char *name, long paths_s)
{
    enum { TEXT = 256 * 1024 };
    char map[128] = "", *text = malloc(TEXT);
    if (!text)
        abort();
    check_read(check, map, sizeof map, "/sys/class/block/%s/dm/name", name);
    long queues_s = queueing(check, name, map, text, TEXT);
    long sum = queues_s == NEVER || paths_s == NEVER ? NEVER : queues_s + paths_s;
    struct check_finding *f = judge(check, "multipath", map, sum);
    if (queues_s == NEVER)
        snprintf(f->value, sizeof f->value, "queues for ever once its last path is gone");
    else if (paths_s == NEVER)
        snprintf(f->value, sizeof f->value, "a path never fails, then %ld s of queueing", queues_s);
    else
        snprintf(f->value, sizeof f->value, "slowest path %ld s, then %ld s of queueing: %ld s",
                 paths_s, queues_s, sum);
    if (!is_well(f))
        snprintf(f->advice, sizeof f->advice,
                 "no_path_retry fail for this device in /etc/multipath.conf (and no "
                 "queue_if_no_path among its features), then multipathd reconfigure%s",
                 queues_s == 0 ? "; here the paths themselves are too slow, see above" : "");
    free(text);
}

void check_transport(struct check *check, const char *name)
{
    char uuid[160] = "", place[PATH_MAX], parent[64], ignored[8];

    if (check_read(check, uuid, sizeof uuid, "/sys/class/block/%s/dm/uuid", name)) {
        long paths_s = check_paths_of(check, name);
        if (strncmp(uuid, "mpath-", 6) == 0)
            check_multipath(check, name, paths_s);
        return;
    }
    /* A partition's disk is the folder above it. */
    if (check_read(check, ignored, sizeof ignored, "/sys/class/block/%s/partition", name) &&
        place_of(check, name, place)) {
        *strrchr(place, '/') = '\0';
        snprintf(parent, sizeof parent, "%s", strrchr(place, '/') + 1);
        name = parent;
    }
    check_path(check, name);
}
