/* SPDX-License-Identifier: Apache-2.0 */
/* The array of fake_array.h. Reservations are of the all-registrants kind or foreign; what the spec
 * leaves to the array is left out. */
#include "support/fake_array.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define APTPL_AND_TYPES_LEN 8

struct fake_array fake_array;

void fake_array_reset(int paths_per_node)
{
    memset(&fake_array, 0, sizeof fake_array);
    fake_array.paths_per_node = paths_per_node;
}

struct fake_nexus *fake_nexus(const char *path)
{
    struct fake_array *f = &fake_array;
    for (int i = 0; i < f->n_nexuses; i++)
        if (strcmp(f->nexuses[i].path, path) == 0)
            return &f->nexuses[i];
    assert(f->n_nexuses < FAKE_NEXUSES);
    struct fake_nexus *n = &f->nexuses[f->n_nexuses++];
    snprintf(n->path, sizeof n->path, "%s", path);
    n->lun = path[1] - '0';
    assert(n->lun >= 0 && n->lun < FAKE_LUNS);
    return n;
}

int fake_registered(int lun, uint64_t key)
{
    int count = 0;
    for (int i = 0; i < fake_array.n_nexuses; i++)
        count += fake_array.nexuses[i].lun == lun && fake_array.nexuses[i].key == key;
    return count;
}

bool fake_may_write(const char *path)
{
    const struct fake_nexus *n = fake_nexus(path);
    return !fake_array.luns[n->lun].held || n->key != 0;
}

static int fake_paths(const char *device, char ret[RESERVATION_PATHS_MAX][RESERVATION_NAME_SIZE],
                      struct error *err)
{
    (void)err;
    for (int i = 0; i < fake_array.paths_per_node; i++)
        snprintf(ret[i], RESERVATION_NAME_SIZE, "%c%c.%d", device[0], device[2], i);
    return fake_array.paths_per_node;
}

static int fake_open(const char *name, void **ret_path, struct error *err)
{
    (void)err;
    struct fake_nexus *n = fake_nexus(name);
    n->opened++;
    *ret_path = n;
    return 0;
}

static void fake_close(void *path)
{
    struct fake_nexus *n = path;
    assert(n->opened > 0);
    n->opened--;
}

static void put_be(uint8_t *p, int bytes, uint64_t v)
{
    for (int i = 0; i < bytes; i++)
        p[i] = (uint8_t)(v >> (8 * (bytes - 1 - i)));
}

static int say_keys(const struct fake_nexus *n, uint8_t *answer)
{
    int at = 8;
    for (int i = 0; i < fake_array.n_nexuses; i++) {
        const struct fake_nexus *other = &fake_array.nexuses[i];
        if (other->lun == n->lun && other->key != 0) {
            put_be(answer + at, 8, other->key);
            at += 8;
        }
    }
    put_be(answer + 4, 4, (uint64_t)at - 8);
    return at;
}

static int fake_in(void *path, uint8_t action, uint8_t *answer, size_t size, struct error *err)
{
    struct fake_nexus *n = path;
    const struct fake_lun *lun = &fake_array.luns[n->lun];

    if (n->broken)
        return error_set(err, -EIO, "broken path");
    memset(answer, 0, size);
    if (action == PR_IN_READ_KEYS)
        return say_keys(n, answer);
    if (action == PR_IN_REPORT_CAPABILITIES) {
        put_be(answer, 2, APTPL_AND_TYPES_LEN);
        answer[2] = 0x01;
        answer[3] = 0x80;
        answer[4] = lun->no_type_7 ? 0x00 : 0x80;
        return APTPL_AND_TYPES_LEN;
    }
    assert(action == PR_IN_READ_RESERVATION);
    if (!lun->held)
        return 8;
    put_be(answer + 4, 4, 16);
    answer[21] = lun->type;
    return 24;
}

static void end_if_nobody(struct fake_lun *lun)
{
    int index = (int)(lun - fake_array.luns), registered = 0;
    for (int i = 0; i < fake_array.n_nexuses; i++)
        registered += fake_array.nexuses[i].lun == index && fake_array.nexuses[i].key != 0;
    lun->held = lun->held && registered > 0;
}

static int remove_keys(const struct fake_nexus *by, uint64_t key, bool all)
{
    int removed = 0;
    for (int i = 0; i < fake_array.n_nexuses; i++) {
        struct fake_nexus *n = &fake_array.nexuses[i];
        if (n->lun != by->lun || n->key == 0 || (!all && n->key != key))
            continue;
        n->key = 0;
        n->aborted += !all;
        removed++;
    }
    return removed;
}

static int carry_out(struct fake_nexus *n, const struct pr_out *c)
{
    struct fake_lun *lun = &fake_array.luns[n->lun];

    if (c->action != PR_OUT_REGISTER_AND_IGNORE && n->key != c->key)
        return -EBADE;
    switch (c->action) {
    case PR_OUT_REGISTER:
    case PR_OUT_REGISTER_AND_IGNORE:
        n->key = c->action_key;
        end_if_nobody(lun);
        return 0;
    case PR_OUT_RESERVE:
        if (lun->held && lun->type != c->type)
            return -EBADE;
        lun->held = true;
        lun->type = c->type;
        return 0;
    case PR_OUT_PREEMPT_AND_ABORT:
        return remove_keys(n, c->action_key, false) > 0 ? 0 : -EBADE;
    case PR_OUT_CLEAR:
        remove_keys(n, 0, true);
        lun->held = false;
        return 0;
    default:
        assert(!"an action that reservation.c does not use");
        return -EINVAL;
    }
}

static int fake_out(void *path, const struct pr_out *command, struct error *err)
{
    struct fake_nexus *n = path;
    int next = fake_array.next;

    if (n->broken)
        return error_set(err, LUNAR_E_INDETERMINATE, "broken path");
    fake_array.outs++;
    if (fake_array.before_out)
        fake_array.before_out(command);
    fake_array.next = FAKE_HEARD;
    int rc = next == FAKE_LOST ? 0 : carry_out(n, command);
    if (fake_array.after_out)
        fake_array.after_out(command);
    if (next != FAKE_HEARD)
        return error_set(err, LUNAR_E_INDETERMINATE, "the answer is lost");
    return rc < 0 ? error_set(err, rc, "reservation conflict") : 0;
}

static void fake_pause(int ms)
{
    fake_array.paused_ms += ms;
}

const struct reservation_ops fake_array_ops = {
    .find_paths = fake_paths,
    .open_path = fake_open,
    .close_path = fake_close,
    .in = fake_in,
    .out = fake_out,
    .pause_ms = fake_pause,
};
