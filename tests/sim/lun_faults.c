/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What befalls an operation of the virtual LUN, and bits that rot on it.
 *
 * Each operation gets a plan when it is submitted: how long, in which pieces, with which end, and
 * what lands behind it. The base is a quick array of disks: 100 to 400 microseconds, whole at
 * LUN_UNIT; everything else is a fault with a weight.
 *
 * Bit rot respects what the design promises: it survives any single damage, so of a group of
 * regions (the two copies of a table) one is damaged at a time, and while it is, no other fault
 * tears the rest of the group. It is repaired when the region was written whole again.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sim/internal.h"

#define LATENCY_MIN_US  100u
#define LATENCY_SPAN_US 300u
/* The long tail: 1 ms to about 4 s, each doubling as likely as the next. */
#define TAIL_MIN_US    1000u
#define TAIL_DOUBLINGS 12u
/* Time between the pieces of a torn operation. */
#define TORN_SPAN_US 20000u
/* A late landing: 1 ms to about 33 s behind the end; after a power cut up to about a minute. */
#define LATE_MIN_US        1000u
#define LATE_DOUBLINGS     15u
#define CUT_DELAY_US       (2 * SIM_S)
#define CUT_DOUBLINGS      16u
#define ROT_PERIOD_US      SIM_S
#define ROT_REGIONS_MAX    2048u
#define ROT_FLIPS_MAX      8u
#define STALE_DUPLICATE_OF 2u /* one in so many of the held-back writes was told to have failed */

struct region {
    uint64_t offset;
    uint32_t len, group;
    bool rotten, torn;
    bool late; /* a late write has put something else there */
};

static struct region regions[ROT_REGIONS_MAX];
static uint32_t n_regions;
static bool rot_scheduled;
#define BOUNDED_MAX 64u                   /* groups from 1 on */
static uint32_t damaged_max[BOUNDED_MAX]; /* 0: not bounded */
static bool held[BOUNDED_MAX];

/* Between min and min * 2^doublings, evenly over the doublings. */
static uint64_t log_uniform(enum sim_fault kind, uint64_t min, uint32_t doublings)
{
    uint64_t low = min << sim_fault_random(kind, doublings);
    return low + sim_fault_random(kind, low);
}

/* --- regions --- */

static bool overlaps(const struct region *r, uint64_t offset, uint64_t len)
{
    return r->offset < offset + len && offset < r->offset + r->len;
}

static bool same_group(const struct region *a, const struct region *b)
{
    return a == b || (a->group != 0 && a->group == b->group);
}

/* True if a rotten region is in the group of what lies here: no second damage, please. */
static bool is_spared(uint64_t offset, uint64_t len)
{
    for (uint32_t i = 0; i < n_regions; i++) {
        if (!overlaps(&regions[i], offset, len))
            continue;
        for (uint32_t j = 0; j < n_regions; j++)
            if (regions[j].rotten && same_group(&regions[i], &regions[j]))
                return true;
    }
    return false;
}

void lun_rot_heal(uint64_t offset, uint32_t len, bool whole)
{
    for (uint32_t i = 0; whole && i < n_regions; i++)
        if (overlaps(&regions[i], offset, len) && offset <= regions[i].offset)
            regions[i].rotten = regions[i].torn = regions[i].late = false;
}

void lun_bound_late(uint32_t group, uint32_t max)
{
    assert(group > 0 && group < BOUNDED_MAX);
    damaged_max[group] = max;
}

void lun_hold_late(uint32_t group, bool is_held)
{
    assert(group > 0 && group < BOUNDED_MAX);
    held[group] = is_held;
}

/* The region that a late write hits, if its group is bounded. */
static struct region *bounded_region(uint64_t offset, uint32_t len)
{
    for (uint32_t i = 0; i < n_regions; i++)
        if (overlaps(&regions[i], offset, len) && regions[i].group > 0 &&
            regions[i].group < BOUNDED_MAX && damaged_max[regions[i].group] > 0)
            return &regions[i];
    return NULL;
}

bool lun_late_allowed(uint64_t offset, const uint8_t *from, uint32_t len)
{
    struct region *hit = bounded_region(offset, len);
    uint32_t damaged = 0;
    if (!hit || memcmp(lun_bytes(offset, len), from, len) == 0)
        return true;
    for (uint32_t i = 0; i < n_regions; i++)
        if (&regions[i] != hit && regions[i].group == hit->group)
            damaged += regions[i].rotten || regions[i].torn || regions[i].late;
    if (held[hit->group] || damaged >= damaged_max[hit->group])
        return false;
    hit->late = true;
    return true;
}

void lun_rot_torn(uint64_t offset, uint32_t len)
{
    for (uint32_t i = 0; i < n_regions; i++)
        if (overlaps(&regions[i], offset, len))
            regions[i].torn = true;
}

static bool may_rot(const struct region *r)
{
    static const uint8_t never_written[8];
    for (uint32_t i = 0; i < n_regions; i++)
        if (same_group(r, &regions[i]) &&
            (regions[i].rotten || regions[i].torn || regions[i].late ||
             lun_in_flight(regions[i].offset, regions[i].len)))
            return false;
    return memcmp(lun_bytes(r->offset, 8), never_written, 8) != 0;
}

/* Mostly in the first page, where the headers and short contents are. */
static void flip(const struct region *r)
{
    uint32_t span = r->len > LUN_UNIT && sim_fault_random(FAULT_BIT_ROT, 4) ? LUN_UNIT : r->len;
    uint64_t at = r->offset + sim_fault_random(FAULT_BIT_ROT, span);
    uint32_t n = 1 + (uint32_t)sim_fault_random(FAULT_BIT_ROT, ROT_FLIPS_MAX);
    for (uint32_t i = 0; i < n && at + i < r->offset + r->len; i++)
        *lun_bytes(at + i, 1) ^= (uint8_t)(1u << sim_fault_random(FAULT_BIT_ROT, 8));
    trace_numbers(true, "rot", at, n, r->group);
}

static void on_rot(void *data)
{
    (void)data;
    sim_at(sim_now_us() + ROT_PERIOD_US, on_rot, NULL);
    if (n_regions == 0 || sim_faults_ended() || sim_weight(FAULT_BIT_ROT) <= 0)
        return;
    struct region *r = &regions[sim_fault_random(FAULT_BIT_ROT, n_regions)];
    if (may_rot(r) && sim_fault(FAULT_BIT_ROT, 300)) {
        r->rotten = true;
        flip(r);
    }
}

void lun_rot_region(uint32_t group, uint64_t offset, uint32_t len)
{
    assert(n_regions < ROT_REGIONS_MAX && len >= 8);
    lun_bytes(offset, len); /* asserts */
    regions[n_regions++] = (struct region){.offset = offset, .len = len, .group = group};
    if (!rot_scheduled)
        sim_at(sim_now_us() + ROT_PERIOD_US, on_rot, NULL);
    rot_scheduled = true;
}

/* --- plans --- */

static void add_cut(struct lun_plan *plan, uint32_t at, uint32_t len)
{
    uint32_t i = plan->n_cuts;
    if (at == 0 || at >= len || i == LUN_CUTS_MAX)
        return;
    for (uint32_t k = 0; k < i; k++)
        if (plan->cuts[k] == at)
            return;
    for (; i > 0 && plan->cuts[i - 1] > at; i--)
        plan->cuts[i] = plan->cuts[i - 1];
    plan->cuts[i] = at;
    plan->n_cuts++;
}

static void plan_time(struct lun_plan *plan)
{
    plan->latency_us = LATENCY_MIN_US + sim_random(STREAM_LUN, LATENCY_SPAN_US);
    if (sim_fault(FAULT_LATENCY_TAIL, 20))
        plan->latency_us = log_uniform(FAULT_LATENCY_TAIL, TAIL_MIN_US, TAIL_DOUBLINGS);
}

/* A large one is never one piece: whoever reads 8 pages at once reads them at several times. */
static void plan_pieces(struct lun_plan *plan, bool write, uint32_t len)
{
    enum sim_fault torn = write ? FAULT_TORN_WRITE : FAULT_TORN_READ;
    uint32_t units = len / LUN_UNIT;
    uint32_t cuts = units > 1 ? 1 + (uint32_t)sim_random(STREAM_LUN, units < 4 ? units : 4) : 0;
    for (uint32_t i = 0; i < cuts; i++)
        add_cut(plan, LUN_UNIT * (uint32_t)sim_random(STREAM_LUN, units), len);
    if (!sim_fault(torn, 100))
        return;
    cuts = write ? 1 + (uint32_t)sim_fault_random(torn, 3) : 1;
    for (uint32_t i = 0; i < cuts; i++)
        add_cut(plan, LUN_SECTOR * (uint32_t)sim_fault_random(torn, len / LUN_SECTOR), len);
    plan->latency_us += sim_fault_random(torn, TORN_SPAN_US);
}

static void plan_failure(struct lun_plan *plan, bool write, bool spared)
{
    if (sim_fault(FAULT_EIO, 5)) {
        plan->status = -EIO;
        plan->lands = false;
        if (write && !spared)
            plan->pieces_landing = (uint32_t)sim_fault_random(FAULT_EIO, plan->n_cuts + 1);
    } else if (write && sim_fault(FAULT_LATE_LANDING, 5)) {
        plan->status = sim_fault_random(FAULT_LATE_LANDING, 2) ? -EIO : -ETIMEDOUT;
        plan->lands = false;
        plan->late_us = log_uniform(FAULT_LATE_LANDING, LATE_MIN_US, LATE_DOUBLINGS);
    } else if (write && sim_fault(FAULT_DUPLICATE, 20)) {
        plan->late_us = log_uniform(FAULT_DUPLICATE, LATE_MIN_US, LATE_DOUBLINGS);
    }
}

static void plan_stale(struct lun_plan *plan)
{
    if (!sim_fault(FAULT_STALE_COORDINATOR, 10))
        return;
    plan->next_term = true;
    plan->late_us = 0;
    if (sim_fault_random(FAULT_STALE_COORDINATOR, STALE_DUPLICATE_OF) == 0) {
        plan->status = -ETIMEDOUT;
        plan->lands = false;
        plan->pieces_landing = 0;
    }
}

void lun_plan(struct lun_plan *plan, const struct process *p, bool write, uint64_t offset,
              uint32_t len)
{
    bool spared = write && n_regions > 0 && is_spared(offset, len);
    memset(plan, 0, sizeof *plan);
    plan->lands = true;
    plan_time(plan);
    if (spared)
        plan->n_cuts = 0; /* a torn moment would be the second damage */
    else
        plan_pieces(plan, write, len);
    plan_failure(plan, write, spared);
    if (write && p->kind == PROCESS_COORDINATOR)
        plan_stale(plan);
}

int lun_plan_power_cut(uint64_t offset, uint32_t len, uint64_t *ret_delay_us)
{
    *ret_delay_us = sim_random(STREAM_LUN, sim_random(STREAM_LUN, 2) ? CUT_DELAY_US : 10 * SIM_MS);
    if (sim_fault(FAULT_LATE_LANDING, 200))
        *ret_delay_us = log_uniform(FAULT_LATE_LANDING, LATE_MIN_US, CUT_DOUBLINGS);
    int what = (int)sim_random(STREAM_LUN, 3);
    return what == 2 && is_spared(offset, len) ? 1 : what;
}

void lun_faults_reset(void)
{
    n_regions = 0;
    memset(damaged_max, 0, sizeof damaged_max);
    memset(held, 0, sizeof held);
    rot_scheduled = false;
}
