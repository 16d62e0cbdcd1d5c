/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PERSISTENT RESERVE IN and OUT of a SCSI disk, by SG_IO; and a device's paths, by sysfs.
 *
 * Happy path: one ioctl. A unit attention is news that the device keeps for whoever comes next
 * (reservations preempted, a power-on), not an answer to our command, which was not carried out: it
 * is sent again. Failure modes: RESERVATION CONFLICT is -EBADE. A busy or not yet ready device is
 * asked again for a while, and so is one whose session to the array was just disrupted, where a
 * repetition cannot do anything twice: a PERSISTENT RESERVE IN. A path that fails or times out: a
 * PERSISTENT RESERVE IN has failed, a PERSISTENT RESERVE OUT may have been carried out
 * (LUNAR_E_INDETERMINATE). A device that is no SCSI disk, or does not know the commands:
 * LUNAR_E_UNSUPPORTED.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <scsi/sg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fencing/reservation_internal.h"

/* A preempt-and-abort waits for the array to end what the victim has there. Longer than that and
 * the outcome is unknown, and the caller comes again. */
#define COMMAND_LIMIT_MS 10000
#define TRIES_MAX        10
#define TRY_PAUSE_MS     200

#define STATUS_GOOD           0x00
#define STATUS_CHECK          0x02
#define STATUS_BUSY           0x08
#define STATUS_CONFLICT       0x18
#define STATUS_TASK_SET_FULL  0x28
#define SENSE_NOT_READY       0x02
#define SENSE_ILLEGAL_REQUEST 0x05
#define SENSE_UNIT_ATTENTION  0x06
#define ASC_INVALID_OPERATION 0x20
#define ASC_INVALID_FIELD     0x24
#define ASC_NO_RESOURCES      0x55
#define OPCODE_RESERVE_IN     0x5e
#define OPCODE_RESERVE_OUT    0x5f
#define CDB_LEN               10
/* The kernel's DID_... codes (include/scsi/scsi_status.h): the command was given up because the
 * host adapter or the session was busy or had to begin anew, which passes by itself. */
#define HOST_BUS_BUSY            0x02
#define HOST_SOFT_ERROR          0x0b
#define HOST_REQUEUE             0x0d
#define HOST_TRANSPORT_DISRUPTED 0x0e
#define OUT_LEN                  24
#define OUT_APTPL                0x01
#define RETRY                    1

struct scsi_path {
    int fd;
};

/* --- a device's paths --- */

static bool read_text(const char *path, char *ret, size_t size)
{
    FILE *f = fopen(path, "re");
    bool read = f && fgets(ret, (int)size, f);
    if (f)
        fclose(f);
    return read;
}

static int list_slaves(const char *folder, char ret[RESERVATION_PATHS_MAX][RESERVATION_NAME_SIZE],
                       struct error *err)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    int n = 0;

    if (!dir)
        return error_set(err, -errno, "%s: %s", folder, strerror(errno));
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] == '.')
            continue;
        if (n == (int)RESERVATION_PATHS_MAX || strlen(entry->d_name) >= RESERVATION_NAME_SIZE) {
            n = error_set(err, LUNAR_E_TOO_BIG, "%s has too many paths", folder);
            break;
        }
        snprintf(ret[n++], RESERVATION_NAME_SIZE, "%s", entry->d_name);
    }
    closedir(dir);
    return n;
}

static int scsi_paths(const char *device, char ret[RESERVATION_PATHS_MAX][RESERVATION_NAME_SIZE],
                      struct error *err)
{
    char link[64], sys[PATH_MAX], file[PATH_MAX + 16], uuid[16] = "";
    struct stat st;

    if (stat(device, &st) < 0)
        return error_set(err, -errno, "%s: %s", device, strerror(errno));
    if (!S_ISBLK(st.st_mode))
        return error_set(err, LUNAR_E_UNSUPPORTED, "%s is no block device", device);
    snprintf(link, sizeof link, "/sys/dev/block/%u:%u", major(st.st_rdev), minor(st.st_rdev));
    if (!realpath(link, sys))
        return error_set(err, -errno, "%s: %s", link, strerror(errno));
    snprintf(file, sizeof file, "%s/dm/uuid", sys);
    if (read_text(file, uuid, sizeof uuid)) {
        if (strncmp(uuid, "mpath-", 6) != 0)
            return error_set(err, LUNAR_E_UNSUPPORTED,
                             "%s is a device-mapper device other than multipath", device);
        snprintf(file, sizeof file, "%s/slaves", sys);
        return list_slaves(file, ret, err);
    }
    snprintf(ret[0], RESERVATION_NAME_SIZE, "%s", basename(sys));
    return 1;
}

static int scsi_open(const char *name, void **ret_path, struct error *err)
{
    char file[sizeof "/dev/" + RESERVATION_NAME_SIZE];
    snprintf(file, sizeof file, "/dev/%s", name);
    int fd = open(file, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, -errno, "%s: %s", file, strerror(errno));
    struct scsi_path *p = malloc(sizeof *p);
    if (!p)
        abort();
    p->fd = fd;
    *ret_path = p;
    return 0;
}

static void scsi_close(void *path)
{
    struct scsi_path *p = path;
    close(p->fd);
    free(p);
}

/* --- one command --- */

/* What a CHECK CONDITION means; the sense data in either of its two formats. */
static int read_sense(const uint8_t *sense, size_t len, const char *what, struct error *err)
{
    bool descriptor = len > 3 && (sense[0] & 0x7e) == 0x72;
    uint8_t key = len > 3 ? sense[descriptor ? 1 : 2] & 0x0f : 0;
    uint8_t asc = descriptor ? sense[2] : len > 13 ? sense[12] : 0;
    uint8_t ascq = descriptor ? sense[3] : len > 13 ? sense[13] : 0;

    if (key == SENSE_UNIT_ATTENTION || key == SENSE_NOT_READY)
        return RETRY;
    if (key == SENSE_ILLEGAL_REQUEST && (asc == ASC_INVALID_OPERATION || asc == ASC_INVALID_FIELD))
        return error_set(err, LUNAR_E_UNSUPPORTED, "the device does not know %s", what);
    if (asc == ASC_NO_RESOURCES)
        return error_set(err, LUNAR_E_FULL, "the device has no room for a further registration");
    return error_set(err, -EIO, "%s: sense %x/%02x/%02x", what, key, asc, ascq);
}

static bool is_passing(unsigned host_status)
{
    return host_status == HOST_BUS_BUSY || host_status == HOST_SOFT_ERROR ||
           host_status == HOST_REQUEUE || host_status == HOST_TRANSPORT_DISRUPTED;
}

/* RETRY, 0 or an error, of a command that the kernel has ended. */
static int judge(const struct sg_io_hdr *io, const char *what, bool out, struct error *err)
{
    if (!out && is_passing(io->host_status))
        return RETRY;
    if (io->host_status != 0)
        return error_set(err, out ? LUNAR_E_INDETERMINATE : -EIO, "%s: the path failed (host %d)",
                         what, io->host_status);
    switch (io->status) {
    case STATUS_GOOD:
        return 0;
    case STATUS_CONFLICT:
        return error_set(err, -EBADE, "%s: reservation conflict", what);
    case STATUS_BUSY:
    case STATUS_TASK_SET_FULL:
        return RETRY;
    case STATUS_CHECK:
        return read_sense(io->sbp, io->sb_len_wr, what, err);
    default:
        return error_set(err, out ? LUNAR_E_INDETERMINATE : -EIO, "%s: status %02x", what,
                         io->status);
    }
}

static int send_once(int fd, struct sg_io_hdr *io, const char *what, bool out, struct error *err)
{
    if (ioctl(fd, SG_IO, io) == 0)
        return judge(io, what, out, err);
    if (errno == ENOTTY || errno == EINVAL || errno == EOPNOTSUPP)
        return error_set(err, LUNAR_E_UNSUPPORTED, "it takes no SCSI commands");
    return error_set(err, -errno, "%s: %s", what, strerror(errno));
}

static int send_command(const struct scsi_path *p, const uint8_t cdb[CDB_LEN], bool out,
                        uint8_t *data, uint32_t len, struct error *err)
{
    const char *what = out ? "PERSISTENT RESERVE OUT" : "PERSISTENT RESERVE IN";
    int rc = RETRY;
    uint8_t sense[64];
    struct sg_io_hdr io;

    for (int i = 0; rc == RETRY && i < TRIES_MAX; i++) {
        if (i > 1) /* one unit attention is usual and costs no time */
            usleep(TRY_PAUSE_MS * 1000);
        memset(&io, 0, sizeof io);
        memset(sense, 0, sizeof sense);
        io.interface_id = 'S';
        io.dxfer_direction = out ? SG_DXFER_TO_DEV : SG_DXFER_FROM_DEV;
        io.cmdp = (uint8_t *)(uintptr_t)cdb;
        io.cmd_len = CDB_LEN;
        io.dxferp = data;
        io.dxfer_len = len;
        io.sbp = sense;
        io.mx_sb_len = sizeof sense;
        io.timeout = COMMAND_LIMIT_MS;
        rc = send_once(p->fd, &io, what, out, err);
    }
    if (rc == RETRY)
        return error_set(err, -EBUSY, "%s: the device stays busy or not ready", what);
    return rc < 0 ? rc : (int)len - io.resid;
}

static int scsi_in(void *path, uint8_t action, uint8_t *answer, size_t size, struct error *err)
{
    const uint8_t cdb[CDB_LEN] = {OPCODE_RESERVE_IN,
                                  action, [7] = (uint8_t)(size >> 8), [8] = (uint8_t)size};

    memset(answer, 0, size);
    return send_command(path, cdb, false, answer, (uint32_t)size, err);
}

static void be64_put(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (56 - 8 * i));
}

static int scsi_out(void *path, const struct pr_out *command, struct error *err)
{
    const uint8_t cdb[CDB_LEN] = {OPCODE_RESERVE_OUT, command->action,
                                  command->type, [8] = OUT_LEN};
    uint8_t data[OUT_LEN] = {0};

    be64_put(data, command->key);
    be64_put(data + 8, command->action_key);
    data[20] = command->aptpl ? OUT_APTPL : 0;
    int rc = send_command(path, cdb, true, data, OUT_LEN, err);
    return rc < 0 ? rc : 0;
}

static void scsi_pause(int ms)
{
    usleep((useconds_t)ms * 1000);
}

const struct reservation_ops reservation_scsi_ops = {
    .find_paths = scsi_paths,
    .open_path = scsi_open,
    .close_path = scsi_close,
    .in = scsi_in,
    .out = scsi_out,
    .pause_ms = scsi_pause,
};
