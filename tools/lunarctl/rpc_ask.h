/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The questions behind `rpc top` and `rpc trace`, page after page, as JSON; and how a watching
 * command bears a daemon that goes away.
 */
#ifndef LUNARCTL_RPC_ASK_H
#define LUNARCTL_RPC_ASK_H

#include <jansson.h>

#include "request.h"

/* All of RpcStats, its pages in one list "nodes", and "time". 0, or the code and sentence. */
int rpc_ask_stats(struct client *client, json_t **ret, struct error *err);

/* Where a reader of the ring stands; zeroed at the start: at the oldest record. */
struct rpc_cursor {
    struct uuid ring;
    uint64_t number;
};
/*
 * All records behind the cursor, which moves: {"role", "missed", "restarted", "records": [...]},
 * each with the time of day and its message's kind in words. "restarted": they are another ring's
 * than the cursor's. 0, or the code and sentence; the cursor then stays.
 */
int rpc_ask_trace(struct client *client, struct rpc_cursor *cursor, json_t **ret,
                  struct error *err);

/*
 * A watch whose daemon does not answer goes on: it says so once and waits, because that the daemon
 * is restarted is what one watches. Its state starts zeroed. Before the first good answer it is a
 * failure. Returns CLI_OK to go on, or the exit code.
 */
struct rpc_patience {
    bool met, waiting;
};
int rpc_patience_failed(struct rpc_patience *patience, const struct cli *cli, int code,
                        const struct error *err);
void rpc_patience_answered(struct rpc_patience *patience);

#endif
