/* SPDX-License-Identifier: Apache-2.0 */
/* A LUN for tests of the LVM side; see lvm_lun.h. Every failure is a reason to skip, and says which
 * it was. */
#include "support/lvm_lun.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/io.h"
#include "coordinator/mda.h"

static char reason[1100];

static const char *because(const char *what)
{
    snprintf(reason, sizeof reason, "%s: %s", what, strerror(errno));
    return reason;
}

/* Other tests take loop devices at the same time, so a free one may be gone when we come. */
static const char *configure(struct lvm_lun *lun, int file, uint32_t sector)
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0)
        return because("no loop devices (not root?)");
    for (int tries = 0; tries < 100; tries++) {
        struct loop_config config = {
            .fd = (uint32_t)file, .block_size = sector, .info = {.lo_flags = LO_FLAGS_AUTOCLEAR}};
        snprintf(lun->device, sizeof lun->device, "/dev/loop%d", ioctl(control, LOOP_CTL_GET_FREE));
        lun->loop = open(lun->device, O_RDWR | O_CLOEXEC);
        if (lun->loop >= 0 && ioctl(lun->loop, LOOP_CONFIGURE, &config) == 0) {
            close(control);
            return NULL;
        }
        if (lun->loop >= 0)
            close(lun->loop);
        lun->loop = -1;
    }
    close(control);
    return because("no free loop device");
}

const char *lvm_lun_attach(struct lvm_lun *lun, uint64_t size, uint32_t sector)
{
    char path[80];
    *lun = (struct lvm_lun){.loop = -1, .fd = -1};
    strcpy(lun->dir, "/tmp/lunar-test-lvm-XXXXXX");
    if (!mkdtemp(lun->dir))
        return because("no temporary directory");
    snprintf(path, sizeof path, "%s/disk", lun->dir);
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || ftruncate(file, (off_t)size) < 0)
        return because("no disk file");
    const char *why = configure(lun, file, sector);
    close(file);
    lun->fd = why ? -1 : io_open(lun->device, 1, NULL);
    lun->sb = (struct superblock){.pool_id = uuid_random(), .extent_size = 4u << 20};
    strcpy(lun->sb.pool_name, "test");
    if (!why && layout_compute(2, sector, &lun->sb.layout, NULL) < 0)
        why = "no layout";
    return why;
}

const char *lvm_lun_open(struct lvm_lun *lun, uint64_t size, uint32_t sector)
{
    struct error err = ERROR_INIT;
    const char *why = lvm_lun_attach(lun, size, sector);
    struct lvm_config config = {
        .device = lun->device, .state_dir = lun->dir, .superblock = &lun->sb, .inherit_fd = -1};
    if (why)
        return why;
    if (lvm_format(lun->device, lun->dir, &lun->sb, &err) < 0 ||
        lvm_open(&config, &lun->lvm, &err) < 0) {
        snprintf(reason, sizeof reason, "%s", err.text);
        return reason;
    }
    return NULL;
}

int lvm_lun_resize(struct lvm_lun *lun, uint64_t size)
{
    char path[80];
    snprintf(path, sizeof path, "%s/disk", lun->dir);
    if (truncate(path, (off_t)size) < 0 || ioctl(lun->loop, LOOP_SET_CAPACITY, 0) < 0)
        return -errno;
    return 0;
}

/* --- lvm's own words beside ours --- */

static const struct lvm_lv *lv_named(const struct lvm_report *r, const char *name)
{
    for (uint32_t i = 0; i < r->n_lvs; i++)
        if (strcmp(r->lvs[i].name, name) == 0)
            return &r->lvs[i];
    return NULL;
}

static bool same_tags(const struct lvm_lv *lv, char *list)
{
    uint32_t n = 0;

    for (char *tag = strtok(list, ","); tag; tag = strtok(NULL, ","), n++) {
        uint32_t i = 0;
        while (i < lv->n_tags && strcmp(lv->tags[i], tag) != 0)
            i++;
        if (i == lv->n_tags)
            return false;
    }
    return n == lv->n_tags;
}

/* Bytes [start, start + size) of the LV lie from `at` on. */
static bool lies_at(const struct lvm_lv *lv, uint64_t start, uint64_t size, uint64_t at)
{
    for (uint32_t i = 0; i < lv->n_segments; start -= lv->segments[i++].length)
        if (start < lv->segments[i].length)
            return lv->segments[i].lun_offset + start == at &&
                   size <= lv->segments[i].length - start;
    return false;
}

/* "name|uuid|size|type|start|length|DEVICE:first-last|tags": one segment. */
static bool same_segment(const struct lvm_report *r, char *line)
{
    char *f[8];
    for (int i = 0; i < 8; i++)
        f[i] = strsep(&line, "|");
    if (!f[7])
        return false;
    f[0] += strspn(f[0], " ");
    const struct lvm_lv *lv = lv_named(r, f[0]);
    if (!lv || strcmp(lv->uuid, f[1]) != 0 || lv->size != strtoull(f[2], NULL, 10) ||
        lv->linear != (strcmp(f[3], "linear") == 0) || !same_tags(lv, f[7]))
        return false;
    const char *extent = strrchr(f[6], ':');
    for (uint32_t i = 0; lv->linear && extent && i < r->n_pvs; i++)
        if (lies_at(lv, strtoull(f[4], NULL, 10), strtoull(f[5], NULL, 10),
                    r->pvs[i].pe_start + strtoull(extent + 1, NULL, 10) * r->extent_size))
            return true;
    return !lv->linear;
}

static bool same_pv(const struct lvm_report *r, const char *line)
{
    char uuid[40];
    unsigned long long start, size, free, device;

    if (sscanf(line, " %39[^|]|%llu|%llu|%llu|%llu", uuid, &start, &size, &free, &device) != 5)
        return false;
    for (uint32_t i = 0; i < r->n_pvs; i++)
        if (strcmp(r->pvs[i].uuid, uuid) == 0)
            return r->pvs[i].pe_start == start && r->pvs[i].size == size &&
                   r->pvs[i].free == free && r->pvs[i].device_size == device;
    return false;
}

static bool same_vg(const struct lvm_report *r, const char *line)
{
    unsigned long long size, free, extent, seqno;
    unsigned pvs, tags;

    return sscanf(line, " %llu|%llu|%llu|%llu|%u|%u", &size, &free, &extent, &seqno, &pvs, &tags) ==
               6 &&
           r->vg_size == size && r->vg_free == free && r->extent_size == extent &&
           r->seqno == seqno && r->n_pvs == pvs;
}

enum { WORDS_VG, WORDS_PV, WORDS_LV };

static int compare(struct lvm_lun *lun, const struct lvm_report *r, int what, struct error *err)
{
    static const char *const commands[] = {"vgs", "pvs", "lvs"};
    static const char *const fields[] = {
        "vg_size,vg_free,vg_extent_size,vg_seqno,pv_count,lv_count",
        "pv_uuid,pe_start,pv_size,pv_free,dev_size",
        "lv_name,lv_uuid,lv_size,segtype,seg_start,seg_size,seg_pe_ranges,lv_tags"};
    const char *args[] = {commands[what],
                          "-qq",
                          "--units",
                          "b",
                          "--nosuffix",
                          "--noheadings",
                          "-o",
                          fields[what],
                          "--separator",
                          "|",
                          "-S",
                          "vg_name=lunar-test",
                          NULL};
    char *said = NULL;
    int rc = lvm_run(lun->lvm, args, &said, err);

    for (char *at = said, *line; rc == 0 && (line = strsep(&at, "\n"));) {
        char *copy = strdup(line);
        bool same = !*line || (what == WORDS_VG   ? same_vg(r, copy)
                               : what == WORDS_PV ? same_pv(r, copy)
                                                  : same_segment(r, copy));
        free(copy);
        if (!same)
            rc = error_set(err, LUNAR_E_CORRUPT, "lvm says otherwise: %s", line);
    }
    free(said);
    return rc;
}

int lvm_lun_report(struct lvm_lun *lun, struct lvm_report *ret, struct error *err)
{
    struct mda_state state;
    char *text = NULL;
    size_t len;
    int rc = mda_read(lun->fd, &state, &text, &len, err);

    *ret = (struct lvm_report){0};
    if (rc == 0)
        rc = lvm_report(lun->lvm, text, ret, err);
    free(text);
    for (int what = WORDS_VG; rc == 0 && what <= WORDS_LV; what++)
        rc = compare(lun, ret, what, err);
    if (rc < 0)
        lvm_report_free(ret);
    return rc;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

void lvm_lun_close(struct lvm_lun *lun)
{
    lvm_close(lun->lvm);
    if (lun->fd >= 0)
        close(lun->fd);
    if (lun->loop >= 0)
        close(lun->loop);
    if (lun->dir[0])
        nftw(lun->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    *lun = (struct lvm_lun){.loop = -1, .fd = -1};
}
