/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated disk; see sim_disk.h. */
#include "support/sim_disk.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct sim_disk {
    struct disk disk;
    uint8_t *bytes;
    uint64_t size;
    uint64_t random;
    struct disk_op *head; /* outstanding, in no particular order */
    uint32_t n;
    uint32_t fail_in; /* 0: no failure is planned */
    uint32_t fail_land;
};

static void submit(struct disk *base, struct disk_op *op)
{
    struct sim_disk *sim = (struct sim_disk *)((char *)base - offsetof(struct sim_disk, disk));

    assert(op->done && op->len > 0 && op->len % 4096 == 0 && op->offset % 4096 == 0);
    op->next = sim->head;
    sim->head = op;
    sim->n++;
}

static const struct disk_ops sim_disk_ops = {.submit = submit};

struct sim_disk *sim_disk_new(uint64_t bytes, uint64_t seed)
{
    struct sim_disk *sim = calloc(1, sizeof *sim);

    if (!sim)
        abort();
    sim->disk.ops = &sim_disk_ops;
    sim->bytes = calloc(1, bytes);
    if (!sim->bytes)
        abort();
    sim->size = bytes;
    sim->random = seed;
    return sim;
}

void sim_disk_free(struct sim_disk *sim)
{
    assert(sim->n == 0);
    free(sim->bytes);
    free(sim);
}

struct disk *sim_disk_disk(struct sim_disk *sim)
{
    return &sim->disk;
}

static struct disk_op *take_any(struct sim_disk *sim)
{
    sim->random = sim->random * 6364136223846793005u + 1442695040888963407u;
    uint64_t which = (sim->random >> 33) % sim->n;
    struct disk_op **p = &sim->head;
    while (which-- > 0)
        p = &(*p)->next;
    struct disk_op *op = *p;
    *p = op->next;
    op->next = NULL;
    sim->n--;
    return op;
}

static int transfer(struct sim_disk *sim, const struct disk_op *op)
{
    bool fails = sim->fail_in > 0 && --sim->fail_in == 0;
    uint32_t len = !fails ? op->len : sim->fail_land < op->len ? sim->fail_land : op->len;

    if (op->offset > sim->size || op->len > sim->size - op->offset)
        return op->write ? -ENOSPC : -EIO;
    if (op->write)
        memcpy(sim->bytes + op->offset, op->buffer, len);
    else if (!fails)
        memcpy(op->buffer, sim->bytes + op->offset, len);
    return fails ? -EIO : 0;
}

bool sim_disk_run_one(struct sim_disk *sim)
{
    if (sim->n == 0)
        return false;
    struct disk_op *op = take_any(sim);
    op->status = transfer(sim, op);
    op->done(op, op->status);
    return true;
}

void sim_disk_fail(struct sim_disk *sim, uint32_t nth, uint32_t land_bytes)
{
    sim->fail_in = nth;
    sim->fail_land = land_bytes;
}
