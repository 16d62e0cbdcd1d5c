/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Alarms: one-shot timers in microseconds on a libuv loop, whose own timers know milliseconds only.
 *
 * One `struct alarms` serves any number of alarms with one timer descriptor; its owner is whoever
 * has many things to time (a hub, a mailbox). All on the loop thread; an alarm rings from the loop,
 * never inline, once, and is unset before it rings. The clock is CLOCK_MONOTONIC, the one that
 * uv_now() counts in milliseconds.
 */
#ifndef LUNAR_BASE_ALARM_H
#define LUNAR_BASE_ALARM_H

#include <stdint.h>
#include <uv.h>

struct alarms;

/* The owner's memory, zeroed before its first use. */
struct alarm {
    void (*ring)(struct alarm *alarm);
    void *data;
    uint64_t at_us; /* the rest is the implementation's */
    uint64_t order;
    uint32_t place; /* 0: not set */
};

/* Aborts without memory or descriptors: nothing safe can follow. */
struct alarms *alarms_open(uv_loop_t *loop);
uint64_t alarms_now_us(const struct alarms *alarms);
/* Sets it anew if it was set. A time in the past rings at the loop's next turn. */
void alarm_set(struct alarms *alarms, struct alarm *alarm, uint64_t at_us);
void alarm_clear(struct alarms *alarms, struct alarm *alarm);
/* Nothing may be set any more. Async: `closed` (may be NULL) is called from the loop. */
void alarms_close(struct alarms *alarms, void (*closed)(void *data), void *data);

#endif
