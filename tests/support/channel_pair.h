/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two channels, an agent's and a coordinator's, over a tiny disk in memory with a clock of its own.
 *
 * The disk is as unkind as a LUN may be: a write lands in two halves with time in between, a failed
 * one may have landed whole, in part or not at all, a read shows what lay there at any moment
 * between its start and its end, and writes of a former life land whenever the test says. The
 * harness checks on every step what must always hold: buffers untouched while a write is out, one
 * operation of a kind at a time, and every message delivered in order, exactly once per session,
 * with the bytes that were sent. A breach is kept in `breach`, a sentence.
 */
#ifndef LUNAR_TESTS_SUPPORT_CHANNEL_PAIR_H
#define LUNAR_TESTS_SUPPORT_CHANNEL_PAIR_H

#include <stdbool.h>
#include <stdint.h>

#include "diskrpc/channel.h"

enum { PAIR_AGENT = 0, PAIR_COORDINATOR = 1 };
enum pair_op_kind { PAIR_PAGE_WRITE, PAIR_SPILL_WRITE, PAIR_PAGE_READ, PAIR_SPILL_READ, PAIR_OPS };

#define PAIR_LIVES_MAX 512

struct pair_op {
    bool out;
    uint64_t done_us;
    int status;
    uint32_t land_bytes; /* how much of a write reaches the disk */
    uint32_t len;
    const uint8_t *buffer; /* writes: the channel's */
    uint8_t *bytes; /* writes: what the buffer held at the start; reads: what will be delivered */
};

struct pair_side {
    struct channel *channel;
    struct channel_config config;
    struct pair_op ops[PAIR_OPS];
    uint64_t deadline_us;
    uint32_t life;                     /* number of the current life; content of its messages */
    uint32_t sent;                     /* in the current session */
    uint32_t received[PAIR_LIVES_MAX]; /* by this life, from each life of the other side */
    uint32_t received_total;
    uint32_t peers; /* times the peer changed */
    uint32_t terms_raised;
    uint32_t declared_dead;
    uint32_t counts[PAIR_OPS]; /* operations asked for */
    uint64_t last_read_us, read_gap_max_us;
    uint64_t last_received_us;
    uint32_t last_len;
};

struct pair {
    uint64_t now_us;
    uint64_t random;
    struct uuid pool;
    uint8_t page[2][PAGE_SIZE_BYTES];
    uint8_t spill[2][LAYOUT_SPILL_SIZE];
    struct pair_side side[2];
    uint64_t latency_max_us; /* 0: everything ends in the microsecond in which it began */
    uint32_t fail_percent;   /* of all operations */
    int fail_writes;         /* so many page writes from now on fail without landing */
    int fail_spill_writes;
    uint64_t scan_us; /* the coordinator's table scan, 0: none */
    uint64_t next_scan_us;
    bool deaf[2];  /* the owner takes no messages */
    bool blind[2]; /* reads of this side's channel fail */
    char breach[256];
};

struct pair *pair_new(uint64_t seed, bool external_poll);
/* An agent and a coordinator that have met, three seconds ago. */
struct pair *pair_joined(bool external_poll);
void pair_free(struct pair *pair);
uint64_t pair_random(struct pair *pair, uint64_t below);
/* A new life of a side, with nothing but the incarnation; operations of the former one are gone. */
void pair_start(struct pair *pair, int side, uint64_t generation, uint64_t run_or_term);
/* Sends the session's next message, `len` >= 16; as channel_submit. */
int pair_send(struct pair *pair, int side, uint32_t len);
/* Steps one side with an event; what it asks for is not carried out. */
struct channel_update pair_step_alone(struct pair *pair, int side, enum channel_event_type type,
                                      int status, const uint8_t *data);
void pair_tick(struct pair *pair, int side);
void pair_run(struct pair *pair, uint64_t ms);
void pair_run_us(struct pair *pair, uint64_t us);
/* Until the side has taken `total` messages in all; false after `patience_ms`. */
bool pair_run_until(struct pair *pair, int side, uint32_t total, uint64_t patience_ms);

#endif
