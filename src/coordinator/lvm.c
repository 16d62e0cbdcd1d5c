/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lvm as a child process: the private configuration, one command, and what its outcome means.
 *
 * Happy path: lvm_open writes STATE_DIR/lvm/lvm.conf, which shows lvm the pool's LUNs and nothing
 * else of the machine (no device-mapper, no udev, no devices file, no backups, the pool's system
 * id); lvm_run executes one command there. Failure modes: exit status 5 and the like: LUNAR_E_EXEC,
 * or LUNAR_E_NO_SPACE where its words say so. A command that was killed, by us after its time or by
 * anybody, may have committed: LUNAR_E_INDETERMINATE. A command that cannot even die keeps the
 * leadership's lease by the socket it inherited, and no other command runs beside it.
 */
#include "coordinator/lvm.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/size.h"
#include "coordinator/lvm_child.h"
#include "coordinator/mem.h"
#include "coordinator/pv_text.h"
#include "diskrpc/pv.h"

/* A report takes about 600 bytes per LV: 256 MiB are 400,000 LVs, far beyond what the metadata area
 * holds. */
#define LVM_OUT_MAX  ((size_t)256 << 20)
#define LVM_ERR_MAX  ((size_t)64 << 10)
#define LVM_ARGS_MAX 62

struct added_pv {
    char uuid[PV_UUID_SIZE];
    char path[PV_PATH_SIZE];
};

struct lvm {
    char *device;
    struct superblock superblock;
    char *dir;  /* STATE_DIR/lvm: LVM_SYSTEM_DIR */
    char *path; /* the program */
    char *env[5];
    char vg_name[POOL_NAME_SIZE + 6];
    uint32_t extent_size;
    int inherit_fd;
    int timeout_ms;
    struct added_pv pvs[LVM_PVS_MAX]; /* that lvm sees beside `device` */
    uint32_t n_pvs;
    pid_t stuck; /* a killed child that has not died yet, or 0 */
    enum { FS_ARG_UNKNOWN, FS_ARG_KNOWN, FS_ARG_NONE } fs_arg;
};

/* What follows `devices` is there so that no property of the machine or of the array changes the
 * layout or the view: the alignments keep the bootloader area at LAYOUT_AREA_START whatever I/O
 * sizes an array reports. use_aio=0: with it every command ends with io_destroy, which waits for a
 * grace period of RCU: 33 of the 40 ms that a command takes. Either way a killed command dies only
 * when its I/O has ended. */
static const char configuration[] =
    "config { checks=0 abort_on_errors=0 profile_dir=\"%1$s/profile\" }\n"
    "devices {\n"
    "  dir=\"/dev\" scan=[\"/dev\"] use_devicesfile=0 hints=\"none\" sysfs_scan=0\n"
    "  obtain_device_list_from_udev=0 external_device_info_source=\"none\"\n"
    "  global_filter=[%2$s\"r|.*|\"]\n"
    "  filter=[%2$s\"r|.*|\"]\n"
    "  multipath_component_detection=0 md_component_detection=0 scan_lvs=0 issue_discards=0\n"
    "  data_alignment_detection=0 data_alignment_offset_detection=0 md_chunk_alignment=0\n"
    "  default_data_alignment=1 data_alignment=0\n"
    "}\n"
    "global {\n"
    "  activation=0 locking_dir=\"%1$s/lock\" wait_for_locks=1 etc=\"%1$s\" umask=63 "
    "notify_dbus=0\n"
    "  use_aio=0 use_lvmlockd=0 use_lvmpolld=0 event_activation=0 system_id_source=\"lvmlocal\"\n"
    "}\n"
    "local { system_id=\"%3$s\" }\n"
    "activation { udev_sync=0 udev_rules=0 monitoring=0 verify_udev_operations=0 }\n"
    "backup { backup=0 archive=0 backup_dir=\"%1$s/backup\" archive_dir=\"%1$s/archive\" }\n"
    "log { syslog=0 verbose=0 }\n";

/* The names stand in quoted strings and, the device's, in a regular expression: plain characters
 * alone are taken. */
static int path_check(const char *what, const char *path, struct error *err)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                "/_.:+@=,-";
    if (path[0] != '/' || path[strspn(path, plain)] != 0)
        return error_set(err, LUNAR_E_INVALID,
                         "%s '%s' must be an absolute path of letters, digits and /_.:+@=,- alone",
                         what, path);
    return 0;
}

/* "." and "+" mean something in a regular expression; a bracket takes that from them. */
static void write_accept(FILE *to, const char *path)
{
    fputs("\"a|^", to);
    for (; *path; path++)
        fprintf(to, strchr(".+", *path) ? "[%c]" : "%c", *path);
    fputs("$|\",", to);
}

/* The devices that lvm may see; malloc'ed. */
static char *accepted(const struct lvm *lvm, const char *real)
{
    char *ret = NULL;
    size_t len;
    FILE *to = open_memstream(&ret, &len);

    if (!to)
        abort();
    write_accept(to, lvm->device);
    write_accept(to, real);
    for (uint32_t i = 0; i < lvm->n_pvs; i++)
        write_accept(to, lvm->pvs[i].path);
    fclose(to);
    return ret;
}

static int make_dir(const char *path, struct error *err)
{
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return error_set(err, -errno, "cannot make the directory %s: %s", path, strerror(errno));
    return 0;
}

static int make_dirs(const struct lvm *lvm, const char *state_dir, struct error *err)
{
    char *lock = NULL;
    if (asprintf(&lock, "%s/lock", lvm->dir) < 0)
        abort();
    int rc = make_dir(state_dir, err);
    if (rc == 0)
        rc = make_dir(lvm->dir, err);
    if (rc == 0)
        rc = make_dir(lock, err);
    free(lock);
    return rc;
}

/* Written aside and renamed, so that a killed writer leaves no half configuration. */
static int file_replace(const char *path, const char *text, struct error *err)
{
    char *aside = NULL;
    int rc = 0;
    if (asprintf(&aside, "%s.new", path) < 0)
        abort();
    FILE *f = fopen(aside, "we");
    if (!f || fputs(text, f) == EOF)
        rc = -errno;
    if (f && fclose(f) != 0 && rc == 0)
        rc = -errno;
    if (rc == 0 && rename(aside, path) < 0)
        rc = -errno;
    free(aside);
    return rc == 0 ? 0 : error_set(err, rc, "cannot write %s: %s", path, strerror(-rc));
}

static int write_configuration(const struct lvm *lvm, struct error *err)
{
    char system_id[48], *text = NULL, *path = NULL, *real = realpath(lvm->device, NULL);
    int rc;
    if (!real)
        return error_set(err, -errno, "cannot find the device %s: %s", lvm->device,
                         strerror(errno));
    rc = path_check("the device", real, err);
    for (uint32_t i = 0; rc == 0 && i < lvm->n_pvs; i++)
        rc = path_check("the device", lvm->pvs[i].path, err);
    if (rc == 0) {
        char *accept = accepted(lvm, real);
        pool_system_id(&lvm->superblock.pool_id, system_id);
        if (asprintf(&text, configuration, lvm->dir, accept, system_id) < 0 ||
            asprintf(&path, "%s/lvm.conf", lvm->dir) < 0)
            abort();
        rc = file_replace(path, text, err);
        free(accept);
    }
    free(text);
    free(path);
    free(real);
    return rc;
}

static int find_program(struct lvm *lvm, struct error *err)
{
    static const char *const usual[] = {"/usr/sbin/lvm", "/sbin/lvm"};
    const char *given = getenv("LUNAR_LVM_PATH");
    for (size_t i = 0; !given && i < sizeof usual / sizeof *usual; i++)
        if (access(usual[i], X_OK) == 0)
            given = usual[i];
    if (!given)
        return error_set(err, LUNAR_E_EXEC, "there is no lvm in /usr/sbin or /sbin: install lvm2");
    lvm->path = mem_strdup(given);
    return 0;
}

int lvm_open(const struct lvm_config *config, struct lvm **ret, struct error *err)
{
    struct lvm *lvm = mem_array(1, sizeof *lvm);
    if (asprintf(&lvm->dir, "%s/lvm", config->state_dir) < 0)
        abort();
    lvm->device = mem_strdup(config->device);
    lvm->superblock = *config->superblock;
    lvm->inherit_fd = config->inherit_fd;
    lvm->timeout_ms = LVM_TIMEOUT_S * 1000;
    lvm->extent_size = config->superblock->extent_size;
    pool_vg_name(config->superblock->pool_name, lvm->vg_name);
    int rc = path_check("the state directory", config->state_dir, err);
    if (rc == 0)
        rc = path_check("the device", config->device, err);
    if (rc == 0)
        rc = find_program(lvm, err);
    if (rc == 0)
        rc = make_dirs(lvm, config->state_dir, err);
    if (rc == 0)
        rc = write_configuration(lvm, err);
    if (rc < 0) {
        lvm_close(lvm);
        error_prefix(err, "cannot prepare lvm");
        return rc;
    }
    lvm->env[0] = mem_strdup("LC_ALL=C");
    lvm->env[1] = mem_strdup("PATH=/usr/sbin:/usr/bin:/sbin:/bin");
    lvm->env[2] = mem_strdup("LVM_SUPPRESS_FD_WARNINGS=1");
    if (asprintf(&lvm->env[3], "LVM_SYSTEM_DIR=%s", lvm->dir) < 0)
        abort();
    *ret = lvm;
    return 0;
}

void lvm_close(struct lvm *lvm)
{
    if (!lvm)
        return;
    if (lvm->stuck > 0) {
        log_warn("lvm_stuck pid=%d text=\"waiting for a killed lvm whose I/O hangs\"",
                 (int)lvm->stuck);
        while (waitpid(lvm->stuck, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    for (size_t i = 0; i < sizeof lvm->env / sizeof *lvm->env; i++)
        free(lvm->env[i]);
    free(lvm->device);
    free(lvm->dir);
    free(lvm->path);
    free(lvm);
}

void lvm_set_timeout(struct lvm *lvm, int timeout_ms)
{
    lvm->timeout_ms = timeout_ms;
}

const char *lvm_vg_name(const struct lvm *lvm)
{
    return lvm->vg_name;
}

const char *lvm_device(const struct lvm *lvm)
{
    return lvm->device;
}

const char *lvm_directory(const struct lvm *lvm)
{
    return lvm->dir;
}

/* Lines that lvm always says without device-mapper, or that merely warn, are not why it failed. */
static bool line_is_noise(const char *line, size_t len)
{
    static const char *const noise[] = {"WARNING:",
                                        "/dev/mapper/control:",
                                        "Failure to communicate with kernel device-mapper",
                                        "Check that device-mapper is",
                                        "Incompatible libdevmapper",
                                        "File descriptor "};
    for (size_t i = 0; i < sizeof noise / sizeof *noise; i++)
        if (len >= strlen(noise[i]) && strncmp(line, noise[i], strlen(noise[i])) == 0)
            return true;
    return len == 0;
}

/* lvm's own words in one line: what it said on standard error without the noise, or the last noise
 * if that is all. */
static void words(const char *text, char *ret, size_t size)
{
    size_t used = 0;
    snprintf(ret, size, "it gave no reason");
    while (*text) {
        text += strspn(text, " \t\n");
        size_t len = strcspn(text, "\n");
        if (line_is_noise(text, len)) {
            if (used == 0 && len > 0)
                snprintf(ret, size, "%.*s", (int)len, text);
        } else if (used + len + 3 < size) {
            used += (size_t)snprintf(ret + used, size - used, "%s%.*s", used ? "; " : "", (int)len,
                                     text);
        }
        text += len;
    }
}

/* Two sentences of lvm, whose numbers are extents:
 *   ... has insufficient free space (958 extents): 1024 required.
 *   Insufficient free space: 10239 extents needed, but only 958 available */
static int no_space(const struct lvm *lvm, const char *said, struct error *err)
{
    unsigned long long free_extents, needed;
    char free_text[SIZE_TEXT_SIZE], needed_text[SIZE_TEXT_SIZE];
    const char *p = strcasestr(said, "insufficient free space");

    if (!p)
        return error_set(err, LUNAR_E_NO_SPACE, "the pool is full: lvm says: %s", said);
    p += strlen("insufficient free space");
    if (sscanf(p, " (%llu extents): %llu", &free_extents, &needed) != 2 &&
        sscanf(p, ": %llu extents needed, but only %llu", &needed, &free_extents) != 2)
        return error_set(err, LUNAR_E_NO_SPACE, "the pool is full: lvm says: %s", said);
    return error_set(err, LUNAR_E_NO_SPACE, "the pool is full: %s needed, %s free",
                     size_format(needed * lvm->extent_size, needed_text),
                     size_format(free_extents * lvm->extent_size, free_text));
}

static int outcome(const struct lvm *lvm, const char *command,
                   const struct lvm_child_output *output, struct error *err)
{
    char said[700];
    int status = output->wait_status;

    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    words(output->err, said, sizeof said);
    if (!WIFEXITED(status))
        return error_set(err, LUNAR_E_INDETERMINATE,
                         "lvm %s was killed by signal %d and may have committed: %s", command,
                         WTERMSIG(status), said);
    if (strcasestr(said, "insufficient free space") ||
        strcasestr(said, "insufficient free extents") || strcasestr(said, "insufficient suitable"))
        return no_space(lvm, said, err);
    return error_set(err, LUNAR_E_EXEC, "lvm %s failed (exit status %d): %s", command,
                     WEXITSTATUS(status), said);
}

bool lvm_is_stuck(struct lvm *lvm)
{
    if (lvm->stuck > 0 && waitpid(lvm->stuck, NULL, WNOHANG) == 0)
        return true;
    lvm->stuck = 0;
    return false;
}

static struct added_pv *find_added(struct lvm *lvm, const char *uuid)
{
    for (uint32_t i = 0; i < lvm->n_pvs; i++)
        if (strcmp(lvm->pvs[i].uuid, uuid) == 0)
            return &lvm->pvs[i];
    return NULL;
}

/* Where an added LUN is now; lvm is shown it if it is new or has moved. */
static int see_pv(struct lvm *lvm, const char *uuid, const char **ret_path, struct error *err)
{
    struct added_pv *pv = find_added(lvm, uuid);
    char path[PV_PATH_SIZE];

    if (!pv || !pv_is_at(pv->path, uuid)) {
        int rc = pv_find(uuid, path, err);
        if (rc < 0)
            return rc;
        if (!pv && lvm->n_pvs == LVM_PVS_MAX)
            return error_set(err, LUNAR_E_UNSUPPORTED, "more than %u LUNs", LVM_PVS_MAX);
        if (!pv)
            pv = &lvm->pvs[lvm->n_pvs++];
        snprintf(pv->uuid, sizeof pv->uuid, "%s", uuid);
        snprintf(pv->path, sizeof pv->path, "%s", path);
        rc = write_configuration(lvm, err);
        if (rc < 0)
            return rc;
        log_info("pv_seen uuid=%s path=%s", uuid, path);
    }
    *ret_path = pv->path;
    return 0;
}

int lvm_see_pvs(struct lvm *lvm, const char *text, struct error *err)
{
    struct pv_text pvs[LVM_PVS_MAX];
    const char *path;
    int n = pv_text_read(text, pvs, err), rc = n < 0 ? n : 0;

    for (int i = 0; rc == 0 && i < n; i++)
        if (pv_uuid_is_added(pvs[i].uuid))
            rc = see_pv(lvm, pvs[i].uuid, &path, err);
    return rc;
}

/* Metadata areas on an added LUN are none of lunar's: lvm would write to them and believe them, and
 * commit.c, which looks at the first LUN's alone, would not see what lies there. */
static int check_added(int fd, const char *path, struct error *err)
{
    struct pv_label label;
    int rc = pv_label_read(fd, &label, err);

    if (rc == 0 && label.n_areas > 0)
        rc = error_set(err, LUNAR_E_CORRUPT,
                       "the LUN at %s has metadata areas of LVM, which lunar has not made: see "
                       "vgcfgbackup(8) and pvcreate(8), --metadatacopies 0",
                       path);
    return rc;
}

static int look_at_pv(const char *path, bool added, uint64_t *ret_size, struct error *err)
{
    uint32_t sector;
    int fd = io_open(path, 0, err);
    int rc = fd < 0 ? fd : io_geometry(fd, ret_size, &sector, err);

    if (rc == 0 && added)
        rc = check_added(fd, path, err);
    if (fd >= 0)
        close(fd);
    return rc;
}

int lvm_report(struct lvm *lvm, const char *text, struct lvm_report *ret, struct error *err)
{
    int rc = lvm_report_parse(text, ret, err);

    for (uint32_t i = 0; rc == 0 && i < ret->n_pvs; i++) {
        struct lvm_pv *pv = &ret->pvs[i];
        const char *path = lvm->device;
        rc = i > 0 ? see_pv(lvm, pv->uuid, &path, err) : 0;
        if (rc == 0)
            rc = look_at_pv(path, i > 0, &pv->device_size, err);
    }
    if (rc < 0)
        lvm_report_free(ret);
    return rc;
}

/* The device that an argument LVM_PV_ARG stands for; malloc'ed, NULL: *err says why. */
static char *pv_path(struct lvm *lvm, const char *uuid, struct error *err)
{
    struct pv_label label;
    const char *path;

    if (pv_uuid_is_added(uuid))
        return see_pv(lvm, uuid, &path, err) < 0 ? NULL : mem_strdup(path);
    int fd = io_open(lvm->device, 0, err);
    int rc = fd < 0 ? fd : pv_label_read(fd, &label, err);
    if (fd >= 0)
        close(fd);
    if (rc == 0 && strcmp(label.uuid, uuid) != 0)
        rc = error_set(err, LUNAR_E_NOT_FOUND, "%s is not the PV %s", lvm->device, uuid);
    return rc < 0 ? NULL : mem_strdup(lvm->device);
}

static void free_args(char **argv)
{
    for (size_t i = 0; argv[i]; i++)
        free(argv[i]);
}

/* Does lvreduce have LVM_FS_ARG? Its help says so; asked once. */
static int look_for_fs_arg(struct lvm *lvm, struct error *err)
{
    static const char *const help[] = {"lvreduce", "--help", NULL};
    char *said = NULL;

    if (lvm->fs_arg != FS_ARG_UNKNOWN)
        return 0;
    int rc = lvm_run(lvm, help, &said, err);
    if (rc == 0)
        lvm->fs_arg = said && strstr(said, " --fs ") ? FS_ARG_KNOWN : FS_ARG_NONE;
    free(said);
    return rc;
}

static bool begins(const char *arg, const char *with)
{
    return strncmp(arg, with, strlen(with)) == 0;
}

/* "lvm" and its arguments, malloc'ed. */
static int make_args(struct lvm *lvm, const char *const *args, char **argv, struct error *err)
{
    size_t used = 0;

    argv[used++] = mem_strdup("lvm");
    for (size_t n = 0; args[n]; n++) {
        assert(n < LVM_ARGS_MAX);
        int rc = begins(args[n], LVM_FS_ARG) ? look_for_fs_arg(lvm, err) : 0;
        if (rc < 0)
            return rc;
        if (begins(args[n], LVM_FS_ARG) && lvm->fs_arg == FS_ARG_NONE)
            continue;
        argv[used] = begins(args[n], LVM_PV_ARG) ? pv_path(lvm, args[n] + strlen(LVM_PV_ARG), err)
                                                 : mem_strdup(args[n]);
        if (!argv[used++])
            return err ? err->code : LUNAR_E_NOT_FOUND;
    }
    return 0;
}

int lvm_run(struct lvm *lvm, const char *const *args, char **ret_stdout, struct error *err)
{
    char *argv[LVM_ARGS_MAX + 2] = {NULL};
    struct lvm_child_output output;

    if (ret_stdout)
        *ret_stdout = NULL;
    if (lvm_is_stuck(lvm))
        return error_set(
            err, LUNAR_E_INDETERMINATE,
            "an earlier lvm (pid %d) was killed but hangs in its I/O: look at the LUN's paths",
            (int)lvm->stuck);
    int rc = make_args(lvm, args, argv, err);
    if (rc < 0) {
        free_args(argv);
        return rc;
    }
    struct lvm_child_config config = {.path = lvm->path,
                                      .argv = argv,
                                      .envp = lvm->env,
                                      .stdin_fd = lvm->inherit_fd,
                                      .timeout_ms = lvm->timeout_ms,
                                      .out_max = LVM_OUT_MAX,
                                      .err_max = LVM_ERR_MAX};
    rc = lvm_child_run(&config, &output, &lvm->stuck, err);
    if (rc == 0)
        rc = outcome(lvm, args[0], &output, err);
    if (rc == 0 && ret_stdout && output.out_cut)
        rc = error_set(err, LUNAR_E_TOO_BIG, "lvm %s printed more than %zu bytes", args[0],
                       LVM_OUT_MAX);
    if (rc == 0 && ret_stdout) {
        *ret_stdout = output.out;
        output.out = NULL;
    }
    lvm_child_output_free(&output);
    free_args(argv);
    return rc;
}
