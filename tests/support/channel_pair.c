/* SPDX-License-Identifier: Apache-2.0 */
/* The unkind disk and the two owners; see channel_pair.h. */
#include "support/channel_pair.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"

static void breach(struct pair *pair, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The first breach is the one that explains the others. */
static void breach(struct pair *pair, const char *format, ...)
{
    va_list args;

    if (pair->breach[0])
        return;
    va_start(args, format);
    vsnprintf(pair->breach, sizeof pair->breach, format, args);
    va_end(args);
}

static void step(struct pair *pair, int side, enum channel_event_type type, int status,
                 const uint8_t *data, uint32_t len);

uint64_t pair_random(struct pair *pair, uint64_t below)
{
    /* splitmix64: any generator with a seed would do. */
    uint64_t z = pair->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % below;
}

struct pair *pair_new(uint64_t seed, bool external_poll)
{
    struct pair *pair = calloc(1, sizeof *pair);
    if (!pair)
        abort();
    pair->random = seed;
    pair->now_us = 1000000;
    pair->pool = (struct uuid){{7}};
    for (int i = 0; i < 2; i++) {
        pair->side[i].config = (struct channel_config){
            .kind = i == PAIR_AGENT ? PAGE_UP : PAGE_DOWN,
            .slot = 3,
            .pool_id = pair->pool,
            .self = {.host_id = i == PAIR_AGENT ? 3 : 1},
            .node_name = i == PAIR_AGENT ? "node-3" : NULL,
            .heartbeat_ms = i == PAIR_AGENT ? CHANNEL_HEARTBEAT_MS : 0,
            .external_poll = i == PAIR_COORDINATOR && external_poll,
        };
    }
    pair->scan_us = external_poll ? 1000000 : 0;
    return pair;
}

static void forget_ops(struct pair_side *s)
{
    for (int i = 0; i < PAIR_OPS; i++) {
        free(s->ops[i].bytes);
        s->ops[i] = (struct pair_op){.out = false};
    }
}

void pair_free(struct pair *pair)
{
    for (int i = 0; i < 2; i++) {
        forget_ops(&pair->side[i]);
        channel_free(pair->side[i].channel);
    }
    free(pair);
}

void pair_start(struct pair *pair, int side, uint64_t generation, uint64_t run_or_term)
{
    struct pair_side *s = &pair->side[side];

    forget_ops(s);
    channel_free(s->channel);
    s->config.self.generation = generation;
    s->config.self.run_or_term = run_or_term;
    s->channel = channel_new(&s->config);
    s->life++;
    if (s->life == PAIR_LIVES_MAX)
        abort();
    s->sent = 0;
    s->last_read_us = pair->now_us;
    memset(s->received, 0, sizeof s->received);
    pair_tick(pair, side);
}

/* --- messages: writer's life, index, then a pattern of both --- */

static uint8_t pattern(uint32_t life, uint32_t index, uint32_t at)
{
    return (uint8_t)(life * 7 + index * 13 + at * 31 + at / 253);
}

int pair_send(struct pair *pair, int side, uint32_t len)
{
    struct pair_side *s = &pair->side[side];
    uint8_t *bytes = malloc(len);

    if (!bytes)
        abort();
    for (uint32_t i = 16; i < len; i++)
        bytes[i] = pattern(s->life, s->sent + 1, i);
    le32_put(bytes, s->life);
    le32_put(bytes + 4, s->sent + 1);
    le64_put(bytes + 8, len);
    int rc = channel_submit(s->channel, bytes, len);
    free(bytes);
    if (rc == 0) {
        s->sent++;
        pair_tick(pair, side);
    }
    return rc;
}

static void check_message(struct pair *pair, int side, const uint8_t *bytes, uint32_t len)
{
    struct pair_side *s = &pair->side[side];
    uint32_t life = le32_get(bytes), index = le32_get(bytes + 4);

    s->received_total++;
    s->last_received_us = pair->now_us;
    s->last_len = len;
    if (le64_get(bytes + 8) != len)
        return breach(pair, "a message of %u bytes came with another length", len);
    if (life == 0 || life > pair->side[!side].life)
        return breach(pair, "a message of life %u, which never was", life);
    if (index != s->received[life] + 1)
        return breach(pair, "message %u of life %u came after %u", index, life, s->received[life]);
    s->received[life]++;
    for (uint32_t i = 16; i < len; i++)
        if (bytes[i] != pattern(life, index, i))
            return breach(pair, "byte %u of message %u is wrong", i, index);
}

/* --- the disk --- */

static void begin(struct pair *pair, int side, enum pair_op_kind kind, const uint8_t *buffer,
                  uint32_t len)
{
    struct pair_op *op = &pair->side[side].ops[kind];
    uint64_t latency = pair->latency_max_us ? pair_random(pair, pair->latency_max_us + 1) : 0;

    if (op->out)
        breach(pair, "a second operation of kind %d", (int)kind);
    free(op->bytes);
    pair->side[side].counts[kind]++;
    len = (len + 4095) / 4096 * 4096;
    *op = (struct pair_op){
        .out = true,
        .done_us = pair->now_us + latency,
        .land_bytes = len,
        .len = len,
        .buffer = buffer,
        .bytes = malloc(len),
    };
    if (pair_random(pair, 100) < pair->fail_percent) {
        op->status = -EIO;
        op->land_bytes = (uint32_t)pair_random(pair, len / 512 + 1) * 512;
    }
}

static void begin_write(struct pair *pair, int side, enum pair_op_kind kind, const uint8_t *buffer,
                        uint32_t len)
{
    begin(pair, side, kind, buffer, len);
    struct pair_op *op = &pair->side[side].ops[kind];
    int *fail = kind == PAIR_PAGE_WRITE ? &pair->fail_writes : &pair->fail_spill_writes;
    if (*fail > 0) {
        (*fail)--;
        op->status = -EIO;
        op->land_bytes = 0;
    }
    memcpy(op->bytes, buffer, op->len);
    if (pair->latency_max_us) { /* the first half is there before the second */
        uint32_t early = (uint32_t)pair_random(pair, op->land_bytes / 512 + 1) * 512;
        memcpy(kind == PAIR_PAGE_WRITE ? pair->page[side] : pair->spill[side], buffer, early);
    }
}

static void begin_read(struct pair *pair, int side, enum pair_op_kind kind, uint32_t len)
{
    begin(pair, side, kind, NULL, len);
    struct pair_op *op = &pair->side[side].ops[kind];
    if (pair->blind[side])
        op->status = -EIO;
    memcpy(op->bytes, kind == PAIR_PAGE_READ ? pair->page[!side] : pair->spill[!side], op->len);
}

static void end_write(struct pair *pair, int side, enum pair_op_kind kind)
{
    struct pair_op *op = &pair->side[side].ops[kind];

    if (memcmp(op->bytes, op->buffer, op->len) != 0)
        breach(pair, "the buffer of kind %d changed while its write was out", (int)kind);
    memcpy(kind == PAIR_PAGE_WRITE ? pair->page[side] : pair->spill[side], op->bytes,
           op->land_bytes);
}

static void end(struct pair *pair, int side, enum pair_op_kind kind)
{
    static const enum channel_event_type types[PAIR_OPS] = {
        CHANNEL_EVENT_PAGE_WRITTEN, CHANNEL_EVENT_SPILL_WRITTEN, CHANNEL_EVENT_PAGE_READ,
        CHANNEL_EVENT_SPILL_READ};
    struct pair_op *op = &pair->side[side].ops[kind];
    bool write = kind == PAIR_PAGE_WRITE || kind == PAIR_SPILL_WRITE;
    uint8_t *bytes = op->bytes;

    op->out = false;
    if (write)
        end_write(pair, side, kind);
    else if (pair_random(pair, 2)) /* the read saw the end of its time, not the beginning */
        memcpy(bytes, kind == PAIR_PAGE_READ ? pair->page[!side] : pair->spill[!side], op->len);
    op->bytes = NULL;
    step(pair, side, types[kind], op->status, write || op->status ? NULL : bytes, op->len);
    free(bytes);
}

/* --- the owners --- */

static void note_update(struct pair *pair, int side, const struct channel_update *u)
{
    struct pair_side *s = &pair->side[side];

    s->deadline_us = u->deadline_us;
    if (u->peer_changed) {
        s->peers++;
        s->sent = 0;
    }
    s->terms_raised += u->term_raised;
    s->declared_dead += u->declared_dead;
    if (u->term_raised && !u->peer_changed)
        breach(pair, "a term was raised without a new peer");
    if (u->write_page)
        begin_write(pair, side, PAIR_PAGE_WRITE, u->page, PAGE_SIZE_BYTES);
    if (u->write_spill)
        begin_write(pair, side, PAIR_SPILL_WRITE, u->spill, u->spill_len);
    if (u->read_spill)
        begin_read(pair, side, PAIR_SPILL_READ, u->spill_read_len);
    if (u->read_page) {
        uint64_t gap = pair->now_us - s->last_read_us;
        s->read_gap_max_us = gap > s->read_gap_max_us ? gap : s->read_gap_max_us;
        s->last_read_us = pair->now_us;
        begin_read(pair, side, PAIR_PAGE_READ, PAGE_SIZE_BYTES);
    }
}

static bool take_all(struct pair *pair, int side)
{
    const uint8_t *bytes;
    uint32_t len;
    bool any = false;

    while (!pair->deaf[side] && channel_receive(pair->side[side].channel, &bytes, &len)) {
        check_message(pair, side, bytes, len);
        any = true;
    }
    return any;
}

static void step(struct pair *pair, int side, enum channel_event_type type, int status,
                 const uint8_t *data, uint32_t len)
{
    struct channel_event event = {type, pair->now_us, status, data, len};
    struct channel_update update;

    do {
        channel_step(pair->side[side].channel, &event, &update);
        note_update(pair, side, &update);
        event = (struct channel_event){.type = CHANNEL_EVENT_TICK, .now_us = pair->now_us};
    } while (take_all(pair, side));
}

void pair_tick(struct pair *pair, int side)
{
    step(pair, side, CHANNEL_EVENT_TICK, 0, NULL, 0);
}

static bool scan(struct pair *pair)
{
    struct pair_side *s = &pair->side[PAIR_COORDINATOR];

    if (!pair->scan_us || !s->channel || pair->next_scan_us > pair->now_us)
        return false;
    pair->next_scan_us = pair->now_us + pair->scan_us;
    if (!s->ops[PAIR_PAGE_READ].out)
        step(pair, PAIR_COORDINATOR, CHANNEL_EVENT_PAGE_READ, 0, pair->page[PAIR_AGENT],
             PAGE_SIZE_BYTES);
    return true;
}

/* Does one thing that is due now; false if nothing is. */
static bool run_one(struct pair *pair)
{
    int first = (int)pair_random(pair, 2);

    for (int i = 0; i < 2; i++) {
        int side = first ^ i;
        struct pair_side *s = &pair->side[side];
        if (!s->channel)
            continue;
        for (int kind = 0; kind < PAIR_OPS; kind++)
            if (s->ops[kind].out && s->ops[kind].done_us <= pair->now_us)
                return end(pair, side, (enum pair_op_kind)kind), true;
        if (s->deadline_us <= pair->now_us)
            return pair_tick(pair, side), true;
    }
    return scan(pair);
}

static uint64_t next_us(const struct pair *pair)
{
    uint64_t next = pair->scan_us ? pair->next_scan_us : UINT64_MAX;

    for (int side = 0; side < 2; side++) {
        const struct pair_side *s = &pair->side[side];
        if (!s->channel)
            continue;
        next = s->deadline_us < next ? s->deadline_us : next;
        for (int kind = 0; kind < PAIR_OPS; kind++)
            if (s->ops[kind].out && s->ops[kind].done_us < next)
                next = s->ops[kind].done_us;
    }
    return next;
}

/* One thing, or the clock moves on, at most to `end_us`. */
static void advance(struct pair *pair, uint64_t end_us, uint32_t *budget)
{
    if (run_one(pair)) {
        if (--*budget == 0)
            breach(pair, "a thousand things in the microsecond %llu",
                   (unsigned long long)pair->now_us);
        return;
    }
    uint64_t next = next_us(pair);
    next = next > pair->now_us ? next : pair->now_us + 1;
    pair->now_us = next < end_us ? next : end_us;
    *budget = 1000;
}

void pair_run(struct pair *pair, uint64_t ms)
{
    pair_run_us(pair, ms * 1000);
}

void pair_run_us(struct pair *pair, uint64_t us)
{
    uint64_t end_us = pair->now_us + us;
    uint32_t budget = 1000;

    while (pair->now_us < end_us && !pair->breach[0])
        advance(pair, end_us, &budget);
}

bool pair_run_until(struct pair *pair, int side, uint32_t total, uint64_t patience_ms)
{
    uint64_t end_us = pair->now_us + patience_ms * 1000;
    uint32_t budget = 1000;

    while (pair->now_us < end_us && !pair->breach[0]) {
        if (pair->side[side].received_total >= total)
            return true;
        advance(pair, end_us, &budget);
    }
    return pair->side[side].received_total >= total;
}

struct pair *pair_joined(bool external_poll)
{
    struct pair *p = pair_new(1, external_poll);
    pair_start(p, PAIR_AGENT, 1, 1);
    pair_start(p, PAIR_COORDINATOR, 4, 10);
    pair_run(p, 3000);
    return p;
}

struct channel_update pair_step_alone(struct pair *p, int side, enum channel_event_type type,
                                      int status, const uint8_t *data)
{
    struct channel_update update;
    struct channel_event event = {type, p->now_us, status, data, PAGE_SIZE_BYTES};
    channel_step(p->side[side].channel, &event, &update);
    return update;
}
