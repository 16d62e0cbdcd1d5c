/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Putting a metadata text back onto the device.
 *
 * Happy path: the text goes to a file, `vgcfgrestore --force` writes it to every sound metadata
 * area with seqno + 1. Failure modes, all measured on 2.03.16: vgcfgrestore leaves an area whose
 * header is damaged as it is and still exits 0 (vgck --updatemetadata does not repair it either);
 * then `pvcreate --restorefile` makes label and headers anew with the PV's old uuid and, given the
 * size that `lun format` gives, in the same places. Where no header is sound but the label is,
 * pvcreate refuses too; then the label, which says nothing that the text does not say, is zeroed
 * first. None of them writes outside label and metadata areas. Killed in between, the next leader
 * restores again: the copy is not touched.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "coordinator/commit_private.h"
#include "coordinator/pv_text.h"

static int write_file(const char *path, const char *text, struct error *err)
{
    FILE *f = fopen(path, "we");
    int rc = f && fputs(text, f) != EOF ? 0 : -errno;
    if (f && fclose(f) != 0 && rc == 0)
        rc = -errno;
    return rc == 0 ? 0 : error_set(err, rc, "cannot write %s: %s", path, strerror(-rc));
}

/* The PV whose label and areas are to be made, if its device can be seen whole: the second area
 * would else be made in the middle of it, among the volumes. */
static int find_first(int fd, const char *text, struct pv_text *ret, struct error *err)
{
    uint64_t bytes;
    uint32_t sector;
    int rc = pv_text_first(text, ret, err);
    if (rc == 0)
        rc = io_geometry(fd, &bytes, &sector, err);
    return rc < 0 || bytes >= ret->device_size
               ? rc
               : pv_too_small("the pool's LUN", bytes, ret->device_size, err);
}

static int zero_label(int fd, struct error *err)
{
    void *zeros = io_alloc(IO_ALIGN); /* the first metadata area begins right behind it */
    int rc = io_write(fd, zeros, IO_ALIGN, 0, err);
    free(zeros);
    return rc;
}

static int remake_headers(struct lvm *lvm, const char *path, const struct pv_text *pv,
                          struct error *err)
{
    char size[32];
    const char *args[] = {"pvcreate",
                          "-qq",
                          "-y",
                          "-ff",
                          "--uuid",
                          pv->uuid,
                          "--restorefile",
                          path,
                          "--metadatasize",
                          size,
                          "--pvmetadatacopies",
                          LVM_METADATA_COPIES,
                          lvm_device(lvm),
                          NULL};
    snprintf(size, sizeof size, "%llub", LAYOUT_LVM_METADATA_SIZE);
    return lvm_run(lvm, args, NULL, err);
}

int metadata_restore(struct lvm *lvm, int fd, const char *text, enum metadata_depth depth,
                     struct error *err)
{
    char *path = NULL;
    if (asprintf(&path, "%s/restore.vg", lvm_directory(lvm)) < 0)
        abort();
    const char *args[] = {"vgcfgrestore",   "-qq", "-y", "--force", "-f", path,
                          lvm_vg_name(lvm), NULL};
    struct pv_text first;
    int rc = write_file(path, text, err);
    if (rc == 0)
        rc = lvm_see_pvs(lvm, text, err);
    if (rc == 0 && depth >= METADATA_HEADERS)
        rc = find_first(fd, text, &first, err);
    if (rc == 0 && depth >= METADATA_LABEL)
        rc = zero_label(fd, err);
    if (rc == 0 && depth >= METADATA_HEADERS)
        rc = remake_headers(lvm, path, &first, err);
    if (rc == 0)
        rc = lvm_run(lvm, args, NULL, err);
    free(path);
    return rc;
}
