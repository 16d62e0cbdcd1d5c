/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lunarctl status`: the pool as the coordinator sees it. Failure modes are request.h's; without a
 * coordinator nobody answers, then what the LUN says of a leader is told, too, and `lunarctl node
 * status` still works.
 */
#include "output.h"
#include "request.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/size.h"
#include "diskrpc/message.h"
#include "who_leads.h"

/* A pool of one LUN has nothing more to say about it. */
static void print_pvs(const json_t *pvs)
{
    char size[SIZE_TEXT_SIZE], free_text[SIZE_TEXT_SIZE];
    const json_t *pv;
    size_t i;

    if (json_array_size(pvs) < 2)
        return;
    json_array_foreach(pvs, i, pv)
    {
        printf("%-12s %" PRIu64 ": %s, %s free, %s\n", i == 0 ? "LUNs" : "",
               js_get_u64(pv, "index"), size_format(js_get_u64(pv, "size"), size),
               size_format(js_get_u64(pv, "free"), free_text), js_get_text(pv, "uuid"));
    }
}

static void print_status(const json_t *s)
{
    char size[SIZE_TEXT_SIZE], free_text[SIZE_TEXT_SIZE], provisioned[SIZE_TEXT_SIZE];
    uint64_t total = js_get_u64(s, "vg_size"), left = js_get_u64(s, "vg_free");
    const char *condition = js_get_text(s, "condition");
    uint64_t waiting = js_get_u64(s, "waiting");

    if (waiting) /* above everything: somebody's I/O stands still */
        printf("*** %" PRIu64 " WRITER%s WAIT%s FOR SPACE: delete volumes or extend the pool ***\n",
               waiting, waiting == 1 ? "" : "S", waiting == 1 ? "S" : "");
    printf("pool         %s (%s)\n", js_get_text(s, "pool"), js_get_text(s, "pool_id"));
    printf("condition    %s\n", *condition ? condition : "healthy");
    printf("coordinator  %s (host %" PRIu64 "), term %" PRIu64 "\n",
           js_get_text(s, "coordinator_node"), js_get_u64(s, "coordinator_host_id"),
           js_get_u64(s, "term"));
    printf("space        %s, %s free (%.1f%% used)\n", size_format(total, size),
           size_format(left, free_text),
           total ? 100.0 * (double)(total - left) / (double)total : 0.0);
    print_pvs(json_object_get(s, "pvs"));
    printf("volumes      %" PRIu64 ", %s in sum (%.0f%% of the space), %" PRIu64 " attachment(s)\n",
           js_get_u64(s, "volumes"), size_format(js_get_u64(s, "provisioned"), provisioned),
           total ? 100.0 * (double)js_get_u64(s, "provisioned") / (double)total : 0.0,
           js_get_u64(s, "attachments"));
    printf("nodes        %" PRIu64 "\n", js_get_u64(s, "nodes"));
    printf("metadata     LVM seqno %" PRIu64 "\n", js_get_u64(s, "vg_seqno"));
}

int cmd_status(struct cli *cli, int argc, char **argv)
{
    struct client *client;
    Lunar__Envelope *answer = NULL;
    Lunar__StatusGet get = LUNAR__STATUS_GET__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    if (!cli_parse(cli, NULL, 0, 0, 0, argc, argv))
        return cli->exit_code;
    int rc = request_open(cli, "agent", &client);
    if (rc != CLI_OK)
        return rc;
    request.op_case = LUNAR__REQUEST__OP_STATUS_GET;
    request.status_get = &get;
    rc = request_call(cli, client, &request, LUNAR__RESPONSE__OP_STATUS, &answer);
    if (rc == CLI_OK)
        rc = output_emit(cli, js_proto(&answer->response->status->base), print_status);
    else if (rc == CLI_UNKNOWN)
        who_leads_explain(cli);
    envelope_free(answer);
    client_close(client);
    return rc;
}
