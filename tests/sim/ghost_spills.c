/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Invariant of the spill slots (PROTOCOL promise 8):
 *
 *   spilled-before-named   a page names a spill that has reached its slot as a whole
 *
 * Each side's last two spills are kept: the one that is being written, and the last that stood. A
 * page that names a message is compared with them when it is submitted. Whether a reader would
 * notice by the checksum does not matter.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "sim/ghost.h"

struct spill {
    const struct process *process;
    uint8_t *bytes;
    uint32_t len, landed;
};

static struct slot {
    struct spill flying, stood;
} slots[2][WORLD_MAX_NODES + 1];

void ghost_spill_submitted(const struct process *p, bool up, uint32_t host, const uint8_t *bytes,
                           uint32_t len)
{
    struct spill *s = &slots[up][host].flying;
    if (s->bytes && s->landed > 0)
        chaos_spill_again(p, up, host, s->bytes, s->len);
    free(s->bytes);
    *s = (struct spill){.process = p, .bytes = malloc(len), .len = len};
    memcpy(s->bytes, bytes, len);
}

static struct slot *slot_at(uint64_t offset)
{
    const struct layout *l = &world_sb.layout;
    const uint64_t starts[] = {l->down_spill, l->up_spill};

    for (int up = 0; up < 2; up++)
        if (offset >= starts[up] && (offset - starts[up]) / LAYOUT_SPILL_SIZE < l->max_nodes)
            return &slots[up][(offset - starts[up]) / LAYOUT_SPILL_SIZE + 1];
    return NULL;
}

void ghost_spill_landed(const struct process *p, uint64_t offset, uint32_t len)
{
    struct slot *slot = slot_at(offset);
    if (!slot || slot->flying.process != p)
        return;
    struct spill *s = &slot->flying;
    s->landed += len;
    if (s->landed < s->len)
        return;
    free(slot->stood.bytes);
    slot->stood = *s;
    slot->stood.bytes = malloc(s->len);
    memcpy(slot->stood.bytes, s->bytes, s->len);
}

void ghost_spill_named(const struct process *p, bool up, const struct page *page)
{
    const struct spill *s = &slots[up][page->slot].stood;
    struct page_message m;
    uint32_t at = 0;

    if (!up && p != ghost_leader())
        return; /* deposed and does not know it yet: the slot is its successor's */
    for (uint32_t i = 0; i < page->count && page_next(page, &at, &m); i++)
        if (m.spilled &&
            (s->process != p || s->len < m.len || crc32c(s->bytes, m.len) != m.spill_crc))
            sim_violation("spilled-before-named",
                          "%s names a spill of %u bytes that has not reached the slot of host %u",
                          p->name, m.len, page->slot);
}
