/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The copies A and B of a table on the LUN, by blocking I/O.
 *
 * Happy path: the newer of two valid copies. Failure modes: a copy that was never written, is torn
 * or is another pool's is passed over when the other one is valid, because a change counts only
 * once both copies were written and read back (SAFETY 3). A copy that cannot be read, or is of a
 * newer lunar, is an error even beside a valid one: nobody knows what it says, and a reader that
 * guesses could give away a disk.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "diskrpc/table.h"

static uint64_t copy_offset(const struct layout *layout, enum table_kind kind, uint32_t host_id,
                            int copy)
{
    return kind == TABLE_GRANTS ? layout_grants(layout, host_id, copy)
                                : layout_reports(layout, host_id, copy);
}

static int prefix(struct error *err, enum table_kind kind, uint32_t host_id, int copy, int rc)
{
    error_prefix(err, "%s of host %u, copy %c", kind == TABLE_GRANTS ? "grants" : "reports",
                 host_id, copy ? 'B' : 'A');
    return rc;
}

/* The first page tells how much there is; most tables end in it. */
static int read_bytes(int fd, uint64_t offset, uint8_t *buffer, uint32_t *ret_len,
                      struct error *err)
{
    int rc = io_read(fd, buffer, LAYOUT_PAGE_SIZE, offset, err);
    if (rc < 0)
        return rc;
    *ret_len = table_wanted(buffer);
    /* Read again as a whole: two reads at different times must not be glued together. */
    return *ret_len > LAYOUT_PAGE_SIZE ? io_read(fd, buffer, *ret_len, offset, err) : 0;
}

int table_read(int fd, const struct layout *layout, enum table_kind kind, uint32_t host_id,
               int copy, const struct uuid *pool_id, struct table *ret, struct error *err)
{
    uint8_t *buffer = io_alloc(LAYOUT_TABLE_SIZE);
    uint32_t len = 0;

    int rc = read_bytes(fd, copy_offset(layout, kind, host_id, copy), buffer, &len, err);
    if (rc == 0)
        rc = table_in(buffer, len, kind, host_id, pool_id, ret, err);
    free(buffer);
    return rc < 0 ? prefix(err, kind, host_id, copy, rc) : 0;
}

static bool may_pass_over(int status)
{
    return status == LUNAR_E_NOT_FOUND || status == LUNAR_E_CORRUPT || status == LUNAR_E_FOREIGN;
}

/* Neither copy is valid: the worse news of the two, and NOT_FOUND only if neither was ever written.
 */
static int worse(const int status[2], const struct error errors[2], struct error *err)
{
    int which = status[0] == LUNAR_E_NOT_FOUND;
    return error_set(err, status[which], "%s", errors[which].text);
}

int table_read_newest(int fd, const struct layout *layout, enum table_kind kind, uint32_t host_id,
                      const struct uuid *pool_id, struct table *ret, struct error *err)
{
    struct table copies[2];
    struct error errors[2] = {ERROR_INIT, ERROR_INIT};
    int status[2], rc = 0;

    table_init(ret, kind, host_id, pool_id);
    for (int i = 0; i < 2; i++) {
        table_init(&copies[i], kind, host_id, pool_id);
        status[i] = table_read(fd, layout, kind, host_id, i, pool_id, &copies[i], &errors[i]);
        if (status[i] < 0 && !may_pass_over(status[i]))
            rc = error_set(err, status[i], "%s", errors[i].text);
    }
    if (rc == 0 && status[0] < 0 && status[1] < 0)
        rc = worse(status, errors, err);
    if (rc == 0) {
        int best = status[0] < 0 || (status[1] == 0 && table_newer(&copies[1], &copies[0]));
        *ret = copies[best];
        copies[best].entries = NULL;
    }
    table_free(&copies[0]);
    table_free(&copies[1]);
    return rc;
}

bool table_read_marks_dead(int fd, const struct layout *layout, uint32_t host_id,
                           const struct uuid *pool_id, uint64_t generation)
{
    struct table grants;
    int rc = table_read_newest(fd, layout, TABLE_GRANTS, host_id, pool_id, &grants, NULL);
    bool marked = rc == 0 && table_marks_dead(&grants, generation);

    table_free(&grants);
    return marked;
}

int table_write(int fd, const struct layout *layout, const struct table *table, int copy,
                struct error *err)
{
    uint64_t offset = copy_offset(layout, table->kind, table->slot, copy);
    uint32_t len = table_size(table);
    uint8_t *buffer = io_alloc(LAYOUT_TABLE_SIZE), *back = io_alloc(LAYOUT_TABLE_SIZE);

    int rc = table_out(table, buffer, len, err);
    if (rc == 0)
        rc = io_write(fd, buffer, len, offset, err);
    if (rc == 0)
        rc = io_read(fd, back, len, offset, err);
    if (rc == 0 && memcmp(buffer, back, len) != 0)
        rc = error_set(err, -EIO, "it reads back otherwise than written");
    free(buffer);
    free(back);
    return rc < 0 ? prefix(err, table->kind, table->slot, copy, rc) : 0;
}
