/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to the agent, with the failures turned into exit codes: the layer between the commands
 * and client.h. */
#ifndef LUNARCTL_REQUEST_H
#define LUNARCTL_REQUEST_H

#include "cli.h"
#include "client.h"

/* Connects to the daemon's socket (`name` as in cli_socket). CLI_OK or the exit code; the failure
 * was shown. */
int request_open(const struct cli *cli, const char *name, struct client **ret);
/*
 * Sends `request` under a new random id and waits. On CLI_OK *ret has a Response without an error
 * whose op is `op_case` (0: any or none); free it with envelope_free. Otherwise the failure was
 * shown.
 */
int request_call(const struct cli *cli, struct client *client, Lunar__Request *request,
                 Lunar__Response__OpCase op_case, Lunar__Envelope **ret);
/* The same without a word: 0 or the negative code, and the sentence is in `err`. An id that the
 * request has already is kept: then it is the same request as before. */
int request_call_quietly(struct client *client, Lunar__Request *request,
                         Lunar__Response__OpCase op_case, Lunar__Envelope **ret, struct error *err);
/* The same for what the daemon answers itself. */
int request_local(const struct cli *cli, struct client *client, Lunar__LocalRequest *request,
                  Lunar__Response__OpCase op_case, Lunar__Envelope **ret);
/* The same without a word: 0 or the negative code, and the sentence is in `err`. */
int request_local_quietly(struct client *client, Lunar__LocalRequest *request,
                          Lunar__Response__OpCase op_case, Lunar__Envelope **ret,
                          struct error *err);
/* What this node's agent says of itself (a Response with an AgentStatus), quietly; NULL: nothing.
 * Free it with envelope_free. */
Lunar__Envelope *request_agent_status(const struct cli *cli, uint64_t timeout_ms);

#endif
