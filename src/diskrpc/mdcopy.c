/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The copy of the last committed LVM metadata: header codec and the two slots; docs/DISK-FORMAT.md
 * has the bytes.
 *
 * Happy path: text, then header, into the slot that does not hold the last copy; read takes the
 * valid slot with the highest seq. Failure modes: killed in between, the slot's old header does not
 * match the text over it, its CRC fails and the other slot, which was not touched, counts. An
 * unreadable slot is an error, never taken for an empty one.
 */
#include "diskrpc/mdcopy.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/le.h"
#include "diskrpc/unit.h"

enum {
    AT_TERM = 48,
    AT_SEQ = 56,
    AT_VG_SEQNO = 64,
    AT_TEXT_LEN = 72,
    AT_TEXT_CRC = 76,
    HEADER_LEN = 80,
};

#define TEXT_MAX ((uint32_t)(LAYOUT_METADATA_COPY_SIZE - MDCOPY_HEADER_SIZE))

void mdcopy_out(const struct mdcopy *copy, uint8_t buffer[MDCOPY_HEADER_SIZE])
{
    const struct unit unit = {
        .kind = UNIT_METADATA,
        .header_len = HEADER_LEN,
        .len = MDCOPY_HEADER_SIZE,
        .pool_id = copy->pool_id,
    };
    memset(buffer, 0, MDCOPY_HEADER_SIZE);
    unit_out(&unit, buffer);
    le64_put(buffer + AT_TERM, copy->term);
    le64_put(buffer + AT_SEQ, copy->seq);
    le64_put(buffer + AT_VG_SEQNO, copy->vg_seqno);
    le32_put(buffer + AT_TEXT_LEN, copy->text_len);
    le32_put(buffer + AT_TEXT_CRC, copy->text_crc);
    unit_seal(buffer);
}

int mdcopy_in(const uint8_t buffer[MDCOPY_HEADER_SIZE], const struct uuid *pool_id,
              struct mdcopy *ret, struct error *err)
{
    struct unit unit;

    int rc = unit_in(buffer, MDCOPY_HEADER_SIZE, UNIT_METADATA, 0, pool_id, &unit, err);
    if (rc < 0)
        return rc;
    if (unit.header_len != HEADER_LEN || unit.len != MDCOPY_HEADER_SIZE)
        return error_set(err, LUNAR_E_CORRUPT, "header %u, length %u", unit.header_len, unit.len);
    struct mdcopy copy = {
        .pool_id = unit.pool_id,
        .term = le64_get(buffer + AT_TERM),
        .seq = le64_get(buffer + AT_SEQ),
        .vg_seqno = le64_get(buffer + AT_VG_SEQNO),
        .text_len = le32_get(buffer + AT_TEXT_LEN),
        .text_crc = le32_get(buffer + AT_TEXT_CRC),
    };
    if (copy.text_len == 0 || copy.text_len > TEXT_MAX)
        return error_set(err, LUNAR_E_CORRUPT, "text of %u bytes", copy.text_len);
    *ret = copy;
    return 0;
}

static uint64_t slot_offset(const struct layout *layout, int slot)
{
    return slot ? layout->metadata_b : layout->metadata_a;
}

static size_t padded(size_t len)
{
    return (len + IO_ALIGN - 1) / IO_ALIGN * IO_ALIGN;
}

static int read_header(int fd, const struct layout *layout, int slot, const struct uuid *pool_id,
                       struct mdcopy *ret, struct error *err)
{
    uint8_t *buffer = io_alloc(MDCOPY_HEADER_SIZE);

    int rc = io_read(fd, buffer, MDCOPY_HEADER_SIZE, slot_offset(layout, slot), err);
    if (rc == 0)
        rc = mdcopy_in(buffer, pool_id, ret, err);
    if (rc == 0)
        ret->slot = slot;
    else
        error_prefix(err, "metadata copy %c", slot ? 'B' : 'A');
    free(buffer);
    return rc;
}

/* On success *ret_text is aligned, NUL-terminated and the caller's. */
static int read_text(int fd, const struct layout *layout, const struct mdcopy *copy,
                     char **ret_text, struct error *err)
{
    char *text = io_alloc(padded(copy->text_len) + 1);
    uint64_t offset = slot_offset(layout, copy->slot) + MDCOPY_HEADER_SIZE;

    int rc = io_read(fd, text, padded(copy->text_len), offset, err);
    if (rc == 0 && crc32c(text, copy->text_len) != copy->text_crc)
        rc = error_set(err, LUNAR_E_CORRUPT, "metadata copy %c: the text's checksum is wrong",
                       copy->slot ? 'B' : 'A');
    if (rc < 0)
        return free(text), rc;
    text[copy->text_len] = '\0';
    *ret_text = text;
    return 0;
}

static int read_slot(int fd, const struct layout *layout, int slot, const struct uuid *pool_id,
                     struct mdcopy *ret, char **ret_text, struct error *err)
{
    int rc = read_header(fd, layout, slot, pool_id, ret, err);
    return rc < 0 ? rc : read_text(fd, layout, ret, ret_text, err);
}

static bool may_pass_over(int status)
{
    return status == LUNAR_E_NOT_FOUND || status == LUNAR_E_CORRUPT || status == LUNAR_E_FOREIGN;
}

int mdcopy_read(int fd, const struct layout *layout, const struct uuid *pool_id, struct mdcopy *ret,
                char **ret_text, struct error *err)
{
    struct mdcopy copies[2] = {0};
    struct error errors[2] = {ERROR_INIT, ERROR_INIT};
    char *texts[2] = {NULL, NULL};
    int status[2], rc = 0;

    for (int i = 0; i < 2; i++) {
        status[i] = read_slot(fd, layout, i, pool_id, &copies[i], &texts[i], &errors[i]);
        if (status[i] < 0 && !may_pass_over(status[i]))
            rc = error_set(err, status[i], "%s", errors[i].text);
    }
    int which = status[0] == LUNAR_E_NOT_FOUND;
    if (rc == 0 && status[0] < 0 && status[1] < 0)
        rc = error_set(err, status[which], "%s", errors[which].text);
    if (rc == 0) {
        int best = status[0] < 0 || (status[1] == 0 && copies[1].seq > copies[0].seq);
        *ret = copies[best];
        *ret_text = texts[best];
        texts[best] = NULL;
    }
    free(texts[0]);
    free(texts[1]);
    return rc;
}

/* Writes and reads back; `bytes` is aligned and padded. */
static int write_checked(int fd, const void *bytes, size_t len, uint64_t offset, struct error *err)
{
    void *back = io_alloc(len);

    int rc = io_write(fd, bytes, len, offset, err);
    if (rc == 0)
        rc = io_read(fd, back, len, offset, err);
    if (rc == 0 && memcmp(bytes, back, len) != 0)
        rc = error_set(err, LUNAR_E_CORRUPT, "it reads back otherwise than written");
    free(back);
    return rc;
}

int mdcopy_store(int fd, const struct layout *layout, const struct uuid *pool_id,
                 const struct mdcopy *previous, uint64_t term, uint64_t vg_seqno, const char *text,
                 size_t len, struct mdcopy *ret, struct error *err)
{
    if (len == 0)
        return error_set(err, LUNAR_E_INVALID, "empty LVM metadata is never stored");
    if (len > TEXT_MAX)
        return error_set(err, LUNAR_E_TOO_BIG, "LVM metadata of %zu bytes exceeds the copy's %u",
                         len, TEXT_MAX);
    const struct mdcopy copy = {
        .pool_id = *pool_id,
        .term = term,
        .seq = previous ? previous->seq + 1 : 1,
        .vg_seqno = vg_seqno,
        .text_crc = crc32c(text, len),
        .text_len = (uint32_t)len,
        .slot = previous ? !previous->slot : 0,
    };
    uint64_t offset = slot_offset(layout, copy.slot);
    uint8_t *body = io_alloc(len), *header = io_alloc(MDCOPY_HEADER_SIZE);
    memcpy(body, text, len);
    mdcopy_out(&copy, header);
    int rc = write_checked(fd, body, padded(len), offset + MDCOPY_HEADER_SIZE, err);
    if (rc == 0)
        rc = write_checked(fd, header, MDCOPY_HEADER_SIZE, offset, err);
    free(body);
    free(header);
    if (rc < 0)
        return error_prefix(err, "metadata copy %c", copy.slot ? 'B' : 'A'), rc;
    *ret = copy;
    return 0;
}
