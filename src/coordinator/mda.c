/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LVM's metadata without LVM: what the last commit left on the device, read with O_DIRECT.
 *
 * The way there: one of the first four 512-byte sectors holds the label, which points at the PV
 * header, which lists data areas and then metadata areas (each list ends with a zero entry). A
 * metadata area is a 512-byte header and a ring; the header's first raw location says where in the
 * area the committed text begins and how long it is; a text that reaches the area's end goes on
 * right behind the header. Label, header and text each carry LVM's CRC-32. Failure modes: anything
 * that does not check out is LUNAR_E_CORRUPT with what it was; a header without a text is a PV
 * without a VG. All numbers are taken as hostile. Nothing is ever written here.
 */
#include "coordinator/mda.h"

#include <isa-l/crc.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/le.h"
#include "diskrpc/layout.h"

#define SECTOR        512u
#define LABEL_SECTORS 4u
#define HEADER_SIZE   512u
/* The text is at most half the ring (the next one must fit beside it), and lunar makes areas of
 * LAYOUT_LVM_METADATA_SIZE. It bounds what a damaged header makes us allocate. */
#define TEXT_MAX         (LAYOUT_LVM_METADATA_SIZE / 2)
#define RAW_LOCN_IGNORED 1u

/* CRC-32 with LVM's own start value and without the final inversion, which ISA-L's form adds on
 * both ends. */
static uint32_t lvm_crc(uint32_t crc, const uint8_t *bytes, size_t len)
{
    return ~crc32_gzip_refl(~crc, bytes, len);
}
#define LVM_CRC_START 0xf597a6cfu

static int corrupt(struct error *err, const char *what)
{
    return error_set(err, LUNAR_E_CORRUPT, "LVM's metadata on the device is damaged: %s", what);
}

/* label: 0 magic, 8 its sector, 16 CRC of the sector from 20 on, 20 offset of the PV header, 24
 * type */
static const uint8_t *find_label(const uint8_t *sectors)
{
    for (unsigned i = 0; i < LABEL_SECTORS; i++) {
        const uint8_t *p = sectors + i * SECTOR;
        if (memcmp(p, "LABELONE", 8) == 0 && memcmp(p + 24, "LVM2 001", 8) == 0 &&
            le64_get(p + 8) == i && le32_get(p + 16) == lvm_crc(LVM_CRC_START, p + 20, SECTOR - 20))
            return p;
    }
    return NULL;
}

/* PV header: 0 uuid, 32 device size, 40 pairs (offset, size): data areas, zero pair, metadata
 * areas, zero pair. */
static int parse_label(const uint8_t *label, struct mda_area *ret, struct error *err)
{
    uint32_t at = le32_get(label + 20);
    int list = 0, n = 0;

    if (at < 32 || at > SECTOR - 40)
        return corrupt(err, "the label points nowhere");
    for (at += 40; list < 2; at += 16) {
        if (at + 16 > SECTOR)
            return corrupt(err, "the list of areas has no end");
        uint64_t start = le64_get(label + at), size = le64_get(label + at + 8);
        if (start == 0)
            list++;
        else if (list == 1 && n < MDA_AREAS_MAX)
            ret[n++] = (struct mda_area){start, size};
    }
    return n > 0 ? n : corrupt(err, "the PV has no metadata area");
}

int mda_areas(int fd, struct mda_area ret[MDA_AREAS_MAX], struct error *err)
{
    uint8_t *sectors = io_alloc(IO_ALIGN);
    int rc = io_read(fd, sectors, IO_ALIGN, 0, err);
    if (rc == 0) {
        const uint8_t *label = find_label(sectors);
        rc = label ? parse_label(label, ret, err) : corrupt(err, "it has no LVM label");
    }
    free(sectors);
    return rc;
}

/* header: 0 CRC from 4 on, 4 magic, 20 version, 24 start, 32 size, 40 raw locations (offset, size,
 * CRC, flags) */
static int parse_header(const uint8_t *h, const struct mda_area *area, struct mda_state *ret,
                        struct error *err)
{
    if (memcmp(h + 4, " LVM2 x[5A%r0N*>", 16) != 0)
        return corrupt(err, "the metadata area has no header");
    if (le32_get(h) != lvm_crc(LVM_CRC_START, h + 4, HEADER_SIZE - 4))
        return corrupt(err, "the checksum of the metadata area's header is wrong");
    if (le32_get(h + 20) != 1 || le64_get(h + 24) != area->start || le64_get(h + 32) != area->size)
        return corrupt(err, "the metadata area's header is of another version or place");
    *ret = (struct mda_state){
        .offset = le64_get(h + 40), .size = le64_get(h + 48), .checksum = le32_get(h + 56)};
    if (ret->offset == 0 || (le32_get(h + 60) & RAW_LOCN_IGNORED))
        return error_set(err, LUNAR_E_NOT_FOUND, "the PV belongs to no VG");
    if (ret->offset < HEADER_SIZE || ret->offset >= area->size || ret->size == 0 ||
        ret->size > area->size - HEADER_SIZE || ret->size > TEXT_MAX)
        return corrupt(err, "the text's place is impossible");
    return 0;
}

/* Any byte range by an aligned read around it. */
static int read_range(int fd, uint64_t start, uint64_t len, uint8_t *to, struct error *err)
{
    uint64_t first = start / IO_ALIGN * IO_ALIGN;
    uint64_t span = (start + len - first + IO_ALIGN - 1) / IO_ALIGN * IO_ALIGN;
    uint8_t *buffer = io_alloc(span);
    int rc = io_read(fd, buffer, span, first, err);
    if (rc == 0)
        memcpy(to, buffer + (start - first), len);
    free(buffer);
    return rc;
}

static int read_text(int fd, const struct mda_area *area, const struct mda_state *state,
                     uint8_t *to, struct error *err)
{
    uint64_t to_end = area->size - state->offset;
    uint64_t head = state->size < to_end ? state->size : to_end;
    int rc = read_range(fd, area->start + state->offset, head, to, err);
    if (rc == 0 && head < state->size)
        rc = read_range(fd, area->start + HEADER_SIZE, state->size - head, to + head, err);
    return rc;
}

static int parse_seqno(const char *text, uint64_t *ret, struct error *err)
{
    const char *at = strstr(text, "\nseqno = ");
    char *end;
    if (!at || at[9] < '0' || at[9] > '9')
        return corrupt(err, "the text has no seqno");
    *ret = strtoull(at + 9, &end, 10);
    return *end == '\n' ? 0 : corrupt(err, "the text's seqno is no number");
}

int mda_read_area(int fd, const struct mda_area *area, struct mda_state *ret, char **ret_text,
                  size_t *ret_len, struct error *err)
{
    uint8_t header[HEADER_SIZE];

    if (area->size <= HEADER_SIZE || area->size > INT64_MAX || area->start > INT64_MAX - area->size)
        return corrupt(err, "the metadata area's size is impossible");
    int rc = read_range(fd, area->start, HEADER_SIZE, header, err);
    if (rc == 0)
        rc = parse_header(header, area, ret, err);
    if (rc < 0)
        return rc;
    char *text = calloc(1, ret->size + 1);
    if (!text)
        return error_set(err, LUNAR_E_TOO_BIG, "no memory for LVM's metadata text");
    rc = read_text(fd, area, ret, (uint8_t *)text, err);
    if (rc == 0 && lvm_crc(LVM_CRC_START, (uint8_t *)text, ret->size) != ret->checksum)
        rc = corrupt(err, "the checksum of the text is wrong");
    if (rc == 0)
        rc = parse_seqno(text, &ret->seqno, err);
    if (rc < 0 || !ret_text) {
        free(text);
        return rc;
    }
    *ret_text = text;
    *ret_len = strlen(text); /* LVM stores a NUL behind its text */
    return 0;
}

int mda_read(int fd, struct mda_state *ret, char **ret_text, size_t *ret_len, struct error *err)
{
    struct mda_area areas[MDA_AREAS_MAX];
    int n = mda_areas(fd, areas, err);
    return n < 0 ? n : mda_read_area(fd, &areas[0], ret, ret_text, ret_len, err);
}
