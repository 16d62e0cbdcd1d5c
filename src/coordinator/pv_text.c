/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The section "physical_volumes { pv0 { id = "..." dev_size = N ... } ... }" of LVM's metadata, as
 * LVM writes it to the disk: one thing a line, no indentation. Failure modes: a section or a uuid
 * that is missing: LUNAR_E_CORRUPT.
 */
#include "coordinator/pv_text.h"

#include <stdlib.h>
#include <string.h>

#define SECTOR 512u

static const char section[] = "\nphysical_volumes {\n";

static bool take_uuid(const char *line, struct pv_text *ret)
{
    static const char key[] = "id = \"";
    if (strncmp(line, key, strlen(key)) != 0)
        return false;
    const char *id = line + strlen(key);
    if (strcspn(id, "\"") != PV_UUID_SIZE - 1)
        return false;
    memcpy(ret->uuid, id, PV_UUID_SIZE - 1);
    ret->uuid[PV_UUID_SIZE - 1] = 0;
    return true;
}

static void take_line(const char *line, struct pv_text *ret)
{
    static const char key[] = "dev_size = ";
    if (strncmp(line, key, strlen(key)) == 0)
        ret->device_size = strtoull(line + strlen(key), NULL, 10) * SECTOR;
    else if (!ret->uuid[0])
        take_uuid(line, ret);
}

/* The line behind this one's. */
static const char *next_line(const char *line)
{
    line += strcspn(line, "\n");
    return line + (*line == '\n');
}

int pv_text_read(const char *text, struct pv_text ret[LVM_PVS_MAX], struct error *err)
{
    const char *line = strstr(text, section);
    int n = 0;

    if (!line)
        return error_set(err, LUNAR_E_CORRUPT, "LVM's metadata names no PVs");
    for (line += strlen(section); *line && *line != '}'; line = next_line(line)) {
        const char *end = line + strcspn(line, "\n");
        if (end == line || end[-1] != '{')
            continue;
        if (n == (int)LVM_PVS_MAX)
            return error_set(err, LUNAR_E_UNSUPPORTED, "the VG has more than %u PVs", LVM_PVS_MAX);
        ret[n] = (struct pv_text){.device_size = 0};
        for (line = next_line(line); *line && *line != '}'; line = next_line(line))
            take_line(line, &ret[n]);
        if (!ret[n++].uuid[0])
            return error_set(err, LUNAR_E_CORRUPT, "LVM's metadata has a PV without uuid");
    }
    return n;
}

int pv_text_first(const char *text, struct pv_text *ret, struct error *err)
{
    struct pv_text pvs[LVM_PVS_MAX];
    int n = pv_text_read(text, pvs, err), found = 0;

    for (int i = 0; i < n; i++) {
        if (pv_uuid_is_added(pvs[i].uuid))
            continue;
        *ret = pvs[i];
        found++;
    }
    if (n >= 0 && found != 1)
        return error_set(err, LUNAR_E_CORRUPT, "LVM's metadata names %d PVs as the first", found);
    return n < 0 ? n : 0;
}
