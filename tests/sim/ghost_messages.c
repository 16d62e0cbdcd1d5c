/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Invariants of the channels: what was submitted is what is received, in order, once, per session
 * (a pair of incarnations); nothing of an older peer comes after a newer one's; what the sender
 * dropped as acknowledged was taken; queues are bounded.
 *
 * The channel's own functions are wrapped by the linker, so production code is observed from
 * outside: each call goes through and is noted.
 */
#include <assert.h>
#include <stdlib.h>

#include "coordinator/leader_internal.h"
#include "sim/ghost.h"

#define CHANNELS_MAX 4096u
/* A message unacknowledged for CHANNEL_RESEND_MS is written again, and its page when it seems lost:
 * two a second at the very most. */
#define RESENDS_PER_10_S 20u
/* An agent that nothing was heard from and nothing is asked of reads its page once a second
 * (CHANNEL_POLL_IDLE_MS); one more for a window that is cut, one for a clock that runs fast. */
#define IDLE_READS_PER_10_S 12u
#define IDLE_WINDOW_US      (10 * SIM_S)
#define IDLE_AFTER_US       (3 * SIM_S) /* CHANNEL_HOT_MS and a second */

/* One direction between two incarnations. */
struct session {
    struct session *next;
    bool up; /* from an agent; a run and a term may be the same number */
    struct incarnation from, to;
    uint64_t *hashes; /* of message i + 1 */
    uint32_t submitted, taken;
};

struct watched {
    struct channel *channel;
    struct process *process;
    struct incarnation self, peer; /* peer: of `out` and `in` */
    struct session *out, *in;
    uint64_t resends, resends_since_us;
    uint64_t busy_us; /* when last something was to do */
    uint64_t reads, looks, reads_since_us, heard_ms;
};

static struct session *sessions;
static struct watched channels[CHANNELS_MAX];
static uint32_t n_channels;

static bool same(const struct incarnation *a, const struct incarnation *b)
{
    return a->host_id == b->host_id && a->generation == b->generation &&
           a->run_or_term == b->run_or_term;
}

static struct session *session_of(bool up, const struct incarnation *from,
                                  const struct incarnation *to)
{
    for (struct session *s = sessions; s; s = s->next)
        if (s->up == up && same(&s->from, from) && same(&s->to, to))
            return s;
    struct session *s = calloc(1, sizeof *s);
    s->up = up;
    s->from = *from;
    s->to = *to;
    s->next = sessions;
    sessions = s;
    return s;
}

static struct watched *watched_by(const struct channel *channel)
{
    for (uint32_t i = n_channels; i > 0; i--)
        if (channels[i - 1].channel == channel)
            return &channels[i - 1];
    assert(!"a channel that nobody made");
    return NULL;
}

static void check_newer(const struct watched *w, const struct incarnation *peer)
{
    bool agent = w->process->kind == PROCESS_AGENT;
    bool newer =
        agent ? peer->run_or_term > w->peer.run_or_term
              : peer->generation > w->peer.generation || (peer->generation == w->peer.generation &&
                                                          peer->run_or_term > w->peer.run_or_term);
    if (!newer)
        sim_violation("nothing-stale-is-obeyed", "%s follows an older peer (host %u, %llu)",
                      w->process->name, peer->host_id, (unsigned long long)peer->run_or_term);
}

/* The session that the channel is in now. */
static void follow(struct watched *w)
{
    const struct incarnation *peer = &channel_stats(w->channel)->peer;
    if (w->out && same(peer, &w->peer))
        return;
    if (w->out && w->peer.host_id)
        check_newer(w, peer);
    w->peer = *peer;
    bool up = w->process->kind == PROCESS_AGENT;
    w->out = session_of(up, &w->self, peer);
    w->in = session_of(!up, peer, &w->self);
    if (w->out->submitted > 0 || w->in->taken > 0)
        sim_violation("in-order-exactly-once",
                      "%s starts its session with host %u (%llu, %llu) a second time",
                      w->process->name, peer->host_id, (unsigned long long)peer->generation,
                      (unsigned long long)peer->run_or_term);
}

static uint64_t hash_of(const uint8_t *data, uint32_t len)
{
    uint64_t h = 14695981039346656037ull ^ len;
    for (uint32_t i = 0; i < len; i++)
        h = (h ^ data[i]) * 1099511628211ull;
    return h;
}

struct channel *__real_channel_new(const struct channel_config *config);
struct channel *__wrap_channel_new(const struct channel_config *config);
struct channel *__wrap_channel_new(const struct channel_config *config)
{
    assert(n_channels < CHANNELS_MAX);
    struct watched *w = &channels[n_channels++];
    *w = (struct watched){.channel = __real_channel_new(config),
                          .process = process_current(),
                          .self = config->self,
                          .busy_us = sim_now_us()};
    return w->channel;
}

void __real_channel_free(struct channel *channel);
void __wrap_channel_free(struct channel *channel);
void __wrap_channel_free(struct channel *channel)
{
    struct watched *w = watched_by(channel);
    memmove(w, w + 1, (size_t)(&channels[--n_channels] - w) * sizeof *w);
    __real_channel_free(channel);
}

static void check_command(const struct watched *w, const uint8_t *data, uint32_t len)
{
    Lunar__Envelope *e;
    if (w->process->kind != PROCESS_COORDINATOR || envelope_unpack(data, len, &e, NULL) < 0)
        return;
    if (e->body_case == LUNAR__ENVELOPE__BODY_COMMAND)
        ghost_order_command(w->process, w->peer.host_id, w->self.run_or_term, e->command);
    envelope_free(e);
}

int __real_channel_submit(struct channel *channel, const uint8_t *data, uint32_t len);
int __wrap_channel_submit(struct channel *channel, const uint8_t *data, uint32_t len);
int __wrap_channel_submit(struct channel *channel, const uint8_t *data, uint32_t len)
{
    struct watched *w = watched_by(channel);
    if (w->process->kind == PROCESS_COORDINATOR)
        ghost_acts(w->process, "sends a message");
    follow(w);
    check_command(w, data, len);
    int rc = __real_channel_submit(channel, data, len);
    if (rc < 0)
        return rc;
    struct session *s = w->out;
    s->hashes = realloc(s->hashes, (s->submitted + 1) * sizeof *s->hashes);
    s->hashes[s->submitted++] = hash_of(data, len);
    return rc;
}

bool __real_channel_receive(struct channel *channel, const uint8_t **ret_data, uint32_t *ret_len);
bool __wrap_channel_receive(struct channel *channel, const uint8_t **ret_data, uint32_t *ret_len);
bool __wrap_channel_receive(struct channel *channel, const uint8_t **ret_data, uint32_t *ret_len)
{
    struct watched *w = watched_by(channel);
    if (!__real_channel_receive(channel, ret_data, ret_len))
        return false;
    follow(w);
    w->busy_us = sim_now_us();
    struct session *s = w->in;
    uint64_t hash = hash_of(*ret_data, *ret_len);
    if (s->taken >= s->submitted)
        sim_violation("in-order-exactly-once", "%s receives message %u, %u were sent",
                      w->process->name, s->taken + 1, s->submitted);
    if (s->hashes[s->taken] != hash)
        sim_violation("in-order-exactly-once", "%s receives another message %u than was sent",
                      w->process->name, s->taken + 1);
    s->taken++;
    return true;
}

/* --- after each event --- */

static void check_bounds(struct watched *w, const struct channel_stats *stats)
{
    if (stats->queued > CHANNEL_QUEUE_MAX || stats->queued_bytes > CHANNEL_QUEUE_BYTES_MAX)
        sim_violation("queues-are-bounded", "%s has %u messages of %u bytes in a queue",
                      w->process->name, stats->queued, stats->queued_bytes);
    if (sim_now_us() - w->resends_since_us < 10 * SIM_S)
        return;
    if (stats->resends - w->resends > RESENDS_PER_10_S)
        sim_violation("retries-are-bounded", "%s has written %llu pages again within 10 s",
                      w->process->name, (unsigned long long)(stats->resends - w->resends));
    w->resends = stats->resends;
    w->resends_since_us = sim_now_us();
}

/* Hints, forged or not, that made it look: each costs one read and no more (promise 12). */
static uint64_t looks_of(const struct process *p)
{
    const struct agent *a = process_agent(p);
    return a && a->hint ? hint_stats(a->hint)->received : 0;
}

static void start_window(struct watched *w, const struct channel_stats *stats)
{
    w->reads_since_us = sim_now_us();
    w->reads = stats->pages_read;
    w->looks = looks_of(w->process);
}

/* Agents alone: a coordinator's idle channels do not read at all. */
static void check_idle(struct watched *w, const struct channel_stats *stats)
{
    const struct agent *a = process_agent(w->process);
    bool busy = !a || !a->node || node_pending(a->node) > 0 || stats->queued > 0 ||
                stats->last_heard_ms != w->heard_ms || w->process->machine->state != MACHINE_UP;

    w->heard_ms = stats->last_heard_ms;
    if (busy)
        w->busy_us = sim_now_us();
    bool closed = looks_of(w->process) < w->looks; /* a fence or a leave has ended the hints */
    if (sim_now_us() < w->busy_us + IDLE_AFTER_US || w->reads_since_us < w->busy_us || closed)
        start_window(w, stats);
    if (sim_now_us() - w->reads_since_us < IDLE_WINDOW_US)
        return;
    uint64_t reads = stats->pages_read - w->reads, looks = looks_of(w->process) - w->looks;
    if (reads > IDLE_READS_PER_10_S + looks)
        sim_violation("polling-is-bounded",
                      "%s has read %llu pages within 10 s with nothing to do and %llu hints",
                      w->process->name, (unsigned long long)reads, (unsigned long long)looks);
    start_window(w, stats);
}

static void check_channel(struct watched *w)
{
    const struct channel_stats *stats = channel_stats(w->channel);
    check_bounds(w, stats);
    if (w->process->kind == PROCESS_AGENT)
        check_idle(w, stats);
    if (!w->out || !same(&stats->peer, &w->peer))
        return;
    uint32_t acknowledged = w->out->submitted - stats->queued;
    if (acknowledged > w->out->taken)
        sim_violation("acknowledged-means-taken",
                      "%s takes %u messages for acknowledged, its peer has taken %u",
                      w->process->name, acknowledged, w->out->taken);
}

static void check_daemon(const struct process *p)
{
    const struct agent *a = process_agent(p);
    const struct coordinator *c = process_coordinator(p);
    if (a && a->node && node_pending(a->node) > NODE_PENDING_MAX)
        sim_violation("queues-are-bounded", "%s has %u requests pending", p->name,
                      node_pending(a->node));
    if (c && c->leader && c->leader->n_ops > LEADER_OPS_MAX)
        sim_violation("queues-are-bounded", "%s has %u operations", p->name, c->leader->n_ops);
}

void ghost_messages_check(void)
{
    for (uint32_t i = 0; i < n_channels; i++) {
        if (channels[i].process->ending) {
            channels[i--] = channels[--n_channels];
            continue;
        }
        check_channel(&channels[i]);
    }
    for (struct process *p = process_next(NULL); p; p = process_next(p))
        if (!p->ending)
            check_daemon(p);
}
