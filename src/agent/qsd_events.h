/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lasting connection to the second monitor of a storage daemon, on the loop: one write threshold
 * of one node is kept in force there, and its event is heard.
 *
 * What a threshold tells: from the moment when it is in force until its event, no write that ends
 * behind it has begun. After the event there is none until another is given. For what had begun
 * before, the highest byte whose write has *ended* is asked for several times in the seconds that
 * follow: QCOW2 takes clusters one behind the other, so that if writes wait in the tail, those in
 * front of its end are done soon, and they lie behind the threshold. Whether a threshold is in
 * force cannot be asked: only query-named-block-nodes says so, which took 5 s on a chain of 256
 * layers, while the daemon does nothing else; query-blockstats takes 0.1 ms per layer.
 *
 * All on the loop thread; the callback never fires inline. In the simulator it is played.
 */
#ifndef LUNAR_AGENT_QSD_EVENTS_H
#define LUNAR_AGENT_QSD_EVENTS_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

/* How long a daemon that is well takes to answer at most: it is a process of one thread that never
 * waits for the LUN in it, on a busy node. */
#define QSD_EVENTS_PATIENCE_MS 5000u

enum qsd_events_what {
    QSD_EVENTS_ARMED,  /* the threshold given last is in force */
    QSD_EVENTS_PASSED, /* a write has passed it: another is to be given */
    QSD_EVENTS_LOST,   /* the connection; it is made again, and the threshold with it */
    QSD_EVENTS_SILENT, /* neither of them for so long; again and again */
};

struct qsd_events;
/* To the socket at `path`, for as long as it takes; `node` and `path` are copied. The daemon may
 * not run yet. */
struct qsd_events *qsd_events_open(uv_loop_t *loop, const char *path,
                                   void (*event)(void *data, enum qsd_events_what what),
                                   void *data);
/* Instead of the one before; ARMED follows, now or after the next connect. 0 is none: nothing
 * follows. */
void qsd_events_arm(struct qsd_events *events, const char *node, uint64_t threshold);
/* Is there a daemon that listens? Whether it answers is not known yet. */
bool qsd_events_connected(const struct qsd_events *events);
/* Async; no callback from now on. */
void qsd_events_close(struct qsd_events *events);

#endif
