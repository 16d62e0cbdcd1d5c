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

static int write_file(const char *path, const char *text, struct error *err)
{
    FILE *f = fopen(path, "we");
    int rc = f && fputs(text, f) != EOF ? 0 : -errno;
    if (f && fclose(f) != 0 && rc == 0)
        rc = -errno;
    return rc == 0 ? 0 : error_set(err, rc, "cannot write %s: %s", path, strerror(-rc));
}

/* The id of the first PV in the text. */
static int find_pv_uuid(const char *text, char ret[PV_UUID_SIZE], struct error *err)
{
    static const char key[] = "\nid = \"";
    const char *pvs = strstr(text, "\nphysical_volumes {");
    const char *id = pvs ? strstr(pvs, key) : NULL;
    size_t len = id ? strcspn(id + strlen(key), "\"") : 0;
    if (len != PV_UUID_SIZE - 1)
        return error_set(err, LUNAR_E_CORRUPT, "the stored metadata names no PV");
    memcpy(ret, id + strlen(key), len);
    ret[len] = 0;
    return 0;
}

static int zero_label(int fd, struct error *err)
{
    void *zeros = io_alloc(IO_ALIGN); /* the first metadata area begins right behind it */
    int rc = io_write(fd, zeros, IO_ALIGN, 0, err);
    free(zeros);
    return rc;
}

static int remake_headers(struct lvm *lvm, const char *path, const char *text, struct error *err)
{
    char uuid[PV_UUID_SIZE], size[32];
    const char *args[] = {"pvcreate",
                          "-qq",
                          "-y",
                          "-ff",
                          "--uuid",
                          uuid,
                          "--restorefile",
                          path,
                          "--metadatasize",
                          size,
                          "--pvmetadatacopies",
                          LVM_METADATA_COPIES,
                          lvm_device(lvm),
                          NULL};
    snprintf(size, sizeof size, "%llub", LAYOUT_LVM_METADATA_SIZE);
    int rc = find_pv_uuid(text, uuid, err);
    return rc == 0 ? lvm_run(lvm, args, NULL, err) : rc;
}

int metadata_restore(struct lvm *lvm, int fd, const char *text, enum metadata_depth depth,
                     struct error *err)
{
    char *path = NULL;
    if (asprintf(&path, "%s/restore.vg", lvm_directory(lvm)) < 0)
        abort();
    const char *args[] = {"vgcfgrestore",   "-qq", "-y", "--force", "-f", path,
                          lvm_vg_name(lvm), NULL};
    int rc = write_file(path, text, err);
    if (rc == 0 && depth >= METADATA_LABEL)
        rc = zero_label(fd, err);
    if (rc == 0 && depth >= METADATA_HEADERS)
        rc = remake_headers(lvm, path, text, err);
    if (rc == 0)
        rc = lvm_run(lvm, args, NULL, err);
    free(path);
    return rc;
}
