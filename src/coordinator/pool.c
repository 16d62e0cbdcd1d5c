/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool's space: its settings, who may be promised how much, and what is said when it gets less.
 *
 * Happy path: `lunarctl pool set` is one commit that changes tags of the VG; a volume is created
 * only if the sum of all sizes stays below the limit of overcommit; the condition names a pool that
 * is fuller than the warning level, and above all one in which writers wait, and each change of
 * that is one log line. Failure modes: one change of the settings at a time, another is told BUSY;
 * a commit that failed is judged by the fresh catalogue, like any other.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/size.h"
#include "coordinator/leader_internal.h"

/* --- settings --- */

static bool settings_equal(const struct catalogue_settings *a, const struct catalogue_settings *b)
{
    return a->overcommit_percent == b->overcommit_percent && a->warn_percent == b->warn_percent;
}

static bool take_settings(struct leader *l, const struct waiter *w, const Lunar__PoolSet *m,
                          struct catalogue_settings *ret)
{
    *ret = l->catalogue->settings;
    if (m->change_overcommit && m->overcommit_limit > CATALOGUE_OVERCOMMIT_MAX) {
        reply_error(l, w, LUNAR_E_INVALID, "an overcommit limit is 1% to 1000000%, or none");
        return false;
    }
    if (m->change_warn && (m->warn_percent < 1 || m->warn_percent > 100)) {
        reply_error(l, w, LUNAR_E_INVALID, "a warning level is 1% to 100%");
        return false;
    }
    if (m->change_overcommit)
        ret->overcommit_percent = (uint32_t)m->overcommit_limit;
    if (m->change_warn)
        ret->warn_percent = m->warn_percent;
    return true;
}

void pool_set_request(struct leader *l, const struct waiter *w, const Lunar__PoolSet *m)
{
    struct catalogue_settings to;
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];
    struct pool_change *change = &l->pool_change;

    if (!take_settings(l, w, m, &to))
        return;
    if (change->token && uuid_equal(&change->waiter.request_id, &w->request_id)) {
        change->waiter = *w; /* the same again: its newest road back */
        return;
    }
    if (change->token) {
        reply_error(l, w, LUNAR_E_BUSY, "the pool's settings are being changed; try again");
        return;
    }
    pool_vg_name(l->sb->pool_name, vg);
    if (settings_equal(&to, &l->catalogue->settings)) {
        reply_status(l, w);
        return;
    }
    catalogue_settings_args(vg, &l->catalogue->settings, &to, &args);
    *change = (struct pool_change){.waiter = *w, .token = l->next_token++, .to = to};
    l->io->commit(l->data, change->token, &args);
}

bool pool_commit_done(struct leader *l, uint64_t token, int rc, const struct error *err)
{
    struct pool_change *change = &l->pool_change;

    if (change->token != token)
        return false;
    change->token = 0;
    bool done = settings_equal(&change->to, &l->catalogue->settings);
    log_info("pool_set overcommit=%" PRIu32 " warn=%" PRIu32 " code=%s",
             change->to.overcommit_percent, change->to.warn_percent,
             done ? "OK" : error_name(rc < 0 ? rc : LUNAR_E_INDETERMINATE));
    if (done)
        reply_status(l, &change->waiter);
    else
        reply_error(l, &change->waiter, rc < 0 ? rc : LUNAR_E_INDETERMINATE,
                    rc < 0 ? err->text : "the settings in the metadata are others");
    return true;
}

/* --- overcommit --- */

uint64_t pool_provisioned(const struct leader *l)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < l->catalogue->n_volumes; i++)
        sum += l->catalogue->volumes[i].size;
    return sum;
}

/* Volumes whose first commit is out: the catalogue does not show them yet. */
static uint64_t being_made(const struct leader *l)
{
    uint64_t sum = 0;
    const struct op *op;
    TAILQ_FOREACH (op, &l->ops, link)
        sum += op->kind == OP_CREATE &&
                       (op->state == OP_STATE_COMMIT_CREATE || op->state == OP_STATE_WAIT_SOURCE)
                   ? op->size
                   : 0;
    return sum;
}

int pool_check_overcommit(const struct leader *l, uint64_t more, struct error *err)
{
    char asked[SIZE_TEXT_SIZE], there[SIZE_TEXT_SIZE], size[SIZE_TEXT_SIZE], may[SIZE_TEXT_SIZE];
    uint32_t percent = l->catalogue->settings.overcommit_percent;
    uint64_t sum = pool_provisioned(l) + being_made(l);
    /* Of a hundredth, so that no product outgrows 64 bits: a VG has less than 2^63 bytes. */
    unsigned __int128 limit = (unsigned __int128)l->catalogue->vg_size * percent / 100;

    if (percent == 0 || (unsigned __int128)sum + more <= limit)
        return 0;
    return error_set(
        err, LUNAR_E_NO_SPACE,
        "the pool's overcommit limit of %" PRIu32 "%% allows %s of volumes on %s of space; %s are "
        "there, %s asked for: delete volumes, extend the pool, or raise the limit (lunarctl pool "
        "set --overcommit)",
        percent, size_format(limit > UINT64_MAX ? UINT64_MAX : (uint64_t)limit, may),
        size_format(l->catalogue->vg_size, size), size_format(sum, there),
        size_format(more, asked));
}

/* --- what is said of it --- */

static enum pool_level level_now(const struct leader *l, uint32_t waiting)
{
    const struct catalogue *c = l->catalogue;
    uint64_t used = c->vg_size - c->vg_free;

    if (waiting > 0)
        return POOL_LEVEL_WAITING;
    if (c->vg_free < c->extent_size)
        return POOL_LEVEL_FULL;
    bool warn = c->vg_size && used / c->extent_size * 100 >=
                                  c->vg_size / c->extent_size * c->settings.warn_percent;
    return warn ? POOL_LEVEL_WARN : POOL_LEVEL_WELL;
}

static double used_percent(const struct catalogue *c)
{
    return c->vg_size ? 100.0 * (double)(c->vg_size - c->vg_free) / (double)c->vg_size : 0;
}

enum pool_level pool_space_text(struct leader *l, char *ret, size_t size)
{
    const struct catalogue *c = l->catalogue;
    char left[SIZE_TEXT_SIZE];
    struct growth_wait wait;
    grow_waiting(l, &wait);
    enum pool_level level = level_now(l, wait.n);

    ret[0] = 0;
    size_format(c->vg_free, left);
    if (level == POOL_LEVEL_WAITING)
        snprintf(ret, size,
                 "%" PRIu32 " writer%s wait%s for space, the first for %" PRIu64
                 " s (volume '%s' on node '%s'): %s, %s free; delete volumes or extend the pool",
                 wait.n, wait.n == 1 ? "" : "s", wait.n == 1 ? "s" : "",
                 (l->now_ms - wait.since_ms) / 1000, wait.volume, node_name(l, wait.host_id),
                 wait.why, left);
    else if (level == POOL_LEVEL_FULL)
        snprintf(ret, size,
                 "the pool is full: who needs more space will wait; delete volumes or extend the "
                 "pool");
    else if (level == POOL_LEVEL_WARN)
        snprintf(ret, size,
                 "%.1f%% of the pool are used (warning from %" PRIu32
                 "%% on), %s free; delete volumes or extend the pool before writers have to wait",
                 used_percent(c), c->settings.warn_percent, left);
    return level;
}

void pool_watch(struct leader *l)
{
    static const char *const names[] = {"well", "warn", "full", "waiting"};
    char text[512];
    enum pool_level level = pool_space_text(l, text, sizeof text), was = l->pool_level;

    if (level == was)
        return;
    l->pool_level = level;
    log_line(level == POOL_LEVEL_WELL ? LOG_LEVEL_INFO : LOG_LEVEL_WARN,
             "pool_condition from=%s to=%s used_percent=%.1f free=%" PRIu64 " text=\"%s\"",
             names[was], names[level], used_percent(l->catalogue), l->catalogue->vg_free, text);
}
