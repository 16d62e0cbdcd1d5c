/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lunarctl pool extend`: the pool gets what its LUNs have grown by.
 *
 * The coordinator does it: it asks every node whether it sees the new size, then has LVM take it.
 * Failure modes: its refusals, which name the nodes; the same command again is safe, and where
 * nothing has grown it changes nothing and is success.
 */
#include "output.h"
#include "request.h"

#include <stdio.h>

#include "base/size.h"
#include "diskrpc/message.h"

/* The status is the pool's after it. */
static void print_extended(const json_t *s)
{
    char size[SIZE_TEXT_SIZE], free_text[SIZE_TEXT_SIZE];
    printf("pool '%s' has %s, %s free\n", js_get_text(s, "pool"),
           size_format(js_get_u64(s, "vg_size"), size),
           size_format(js_get_u64(s, "vg_free"), free_text));
}

int cmd_pool_extend(struct cli *cli, int argc, char **argv)
{
    struct client *client;
    Lunar__Envelope *answer = NULL;
    Lunar__PoolExtend extend = LUNAR__POOL_EXTEND__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    if (!cli_parse(cli, NULL, 0, 0, 0, argc, argv))
        return cli->exit_code;
    int rc = request_open(cli, "agent", &client);
    if (rc != CLI_OK)
        return rc;
    request.op_case = LUNAR__REQUEST__OP_POOL_EXTEND;
    request.pool_extend = &extend;
    rc = request_call(cli, client, &request, LUNAR__RESPONSE__OP_STATUS, &answer);
    if (rc == CLI_OK)
        rc = output_emit(cli, js_proto(&answer->response->status->base), print_extended);
    envelope_free(answer);
    client_close(client);
    return rc;
}
