/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lunarctl node ...` and `coordinator resign`: who is in the pool, what this node does, its
 * sanlock name, leaving. `node identity` needs no daemon at all, because it is asked for while
 * sanlock is being set up.
 */
#include "output.h"
#include "request.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/size.h"
#include "diskrpc/message.h"
#include "fencing/leases.h"

#define IDENTITY_TIMEOUT_MS 2000 /* asking the agent for its name is a courtesy: fall back soon */

/* "-": it has left; "dead": proved; else the time that is left if it does not renew again. */
static const char *dead_in(const json_t *node, char ret[32])
{
    const char *state = js_get_text(node, "state");

    if (strcmp(state, "FREE") == 0 || strcmp(state, "LEFT") == 0)
        return "-";
    if (strcmp(state, "DEAD") == 0)
        return "dead";
    return text_age(js_get_u64(node, "dead_in_ms"), ret);
}

static void print_nodes(const json_t *doc)
{
    static const char *const headers[] = {">HOST",  "NODE",     "STATE",    ">GENERATION", ">RUN",
                                          ">HEARD", ">RENEWED", ">DEAD IN", ">ATTACHED"};
    struct text_table *t = text_table_new(headers, 9);
    size_t i;
    json_t *node;

    json_array_foreach(json_object_get(doc, "nodes"), i, node)
    {
        char host[24], generation[24], run[24], heard[32], renewed[32], dead[32], attached[24];
        snprintf(host, sizeof host, "%" PRIu64, js_get_u64(node, "host_id"));
        snprintf(generation, sizeof generation, "%" PRIu64, js_get_u64(node, "generation"));
        snprintf(run, sizeof run, "%" PRIu64, js_get_u64(node, "run"));
        snprintf(attached, sizeof attached, "%" PRIu64, js_get_u64(node, "attachments"));
        text_age(js_get_u64(node, "last_heard_ms"), heard);
        text_age(js_get_u64(node, "renewed_ms"), renewed);
        text_table_row(t, (const char *[]){host, js_get_text(node, "name"),
                                           js_get_text(node, "state"), generation, run, heard,
                                           renewed, dead_in(node, dead), attached});
    }
    text_table_print(t, 0);
}

static int ask_nodes(const struct cli *cli, struct client *client, Lunar__Envelope **ret)
{
    Lunar__NodeList list = LUNAR__NODE_LIST__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    request.op_case = LUNAR__REQUEST__OP_NODE_LIST;
    request.node_list = &list;
    return request_call(cli, client, &request, LUNAR__RESPONSE__OP_NODES, ret);
}

int cmd_node_list(struct cli *cli, int argc, char **argv)
{
    struct client *client;
    Lunar__Envelope *answer = NULL;

    if (!cli_parse(cli, NULL, 0, 0, 0, argc, argv))
        return cli->exit_code;
    int rc = request_open(cli, "agent", &client);
    if (rc != CLI_OK)
        return rc;
    rc = ask_nodes(cli, client, &answer);
    if (rc == CLI_OK)
        rc = output_emit(cli, js_proto(&answer->response->nodes->base), print_nodes);
    envelope_free(answer);
    client_close(client);
    return rc;
}

/* --- node fence --- */

/* The one node of that name; two host ids of it, one of a life long ago, need a choice. */
static int choose_node(const struct cli *cli, const Lunar__Nodes *nodes, const char *name,
                       uint64_t host_id, const Lunar__Node **ret)
{
    struct error err = ERROR_INIT;
    unsigned found = 0;

    for (size_t i = 0; i < nodes->n_nodes; i++) {
        const Lunar__Node *n = nodes->nodes[i];
        if (strcmp(n->name, name) != 0 || (host_id && n->host_id != host_id))
            continue;
        *ret = n;
        found++;
    }
    if (found == 1)
        return CLI_OK;
    if (found > 1)
        return cli_usage(cli, "%u host ids belong to '%s': choose one with --host-id (node list)",
                         found, name);
    error_set(&err, LUNAR_E_NOT_FOUND, "no node '%s' in this pool (node list)", name);
    return cli_fail(cli, err.code, &err);
}

static void print_fenced(const json_t *doc)
{
    printf("node '%s' (host id %" PRIu64 ", generation %" PRIu64
           ") counts as dead for good. What it had attached (%" PRIu64
           ") may be attached elsewhere.\n"
           "If that machine runs after all, switch it off now: whatever it still writes is lost, "
           "and may destroy what others write.\n",
           js_get_text(doc, "node"), js_get_u64(doc, "host_id"), js_get_u64(doc, "generation"),
           js_get_u64(doc, "attachments"));
}

static int emit_fenced(const struct cli *cli, const Lunar__Node *node)
{
    json_t *doc = json_object();
    js_set(doc, "node", js_text(node->name));
    js_set(doc, "host_id", js_u64(node->host_id));
    js_set(doc, "generation", js_u64(node->generation));
    js_set(doc, "attachments", js_u64(node->attachments));
    return output_emit(cli, doc, print_fenced);
}

static int fence(const struct cli *cli, struct client *client, const Lunar__Node *node)
{
    Lunar__Envelope *answer = NULL;
    Lunar__NodeFence fence = LUNAR__NODE_FENCE__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    fence.host_id = node->host_id;
    fence.generation = node->generation;
    fence.name = node->name;
    request.op_case = LUNAR__REQUEST__OP_NODE_FENCE;
    request.node_fence = &fence;
    int rc = request_call(cli, client, &request, LUNAR__RESPONSE__OP__NOT_SET, &answer);
    if (rc == CLI_OK)
        rc = emit_fenced(cli, node);
    envelope_free(answer);
    return rc;
}

int cmd_node_fence(struct cli *cli, int argc, char **argv)
{
    bool sworn = false;
    uint64_t host_id = 0;
    const struct cli_option options[] = {
        {"i-have-powered-it-off", 0, CLI_FLAG, &sworn, 0, 0, NULL,
         "you swear that the machine is off; without it nothing is done"},
        {"host-id", 0, CLI_NUMBER, &host_id, 1, UINT32_MAX, "N",
         "which, if several host ids belong to that name"},
    };
    struct client *client;
    const Lunar__Node *node = NULL;
    Lunar__Envelope *nodes = NULL;

    if (!cli_parse(cli, options, 2, 1, 1, argc, argv))
        return cli->exit_code;
    if (!sworn)
        return cli_usage(cli, "switch the machine off first, make sure that it is, and say so with "
                              "--i-have-powered-it-off");
    int rc = request_open(cli, "agent", &client);
    if (rc != CLI_OK)
        return rc;
    rc = ask_nodes(cli, client, &nodes);
    if (rc == CLI_OK)
        rc = choose_node(cli, nodes->response->nodes, cli->args[0], host_id, &node);
    if (rc == CLI_OK)
        rc = fence(cli, client, node);
    envelope_free(nodes);
    client_close(client);
    return rc;
}

/* What a leaf that grows has on the LUN, and what is asked for. */
static const char *space_text(const json_t *volume, char *ret, size_t size)
{
    char has[SIZE_TEXT_SIZE], asked[SIZE_TEXT_SIZE];
    uint64_t space = js_get_u64(volume, "space"), wants = js_get_u64(volume, "space_asked");

    size_format(space, has);
    if (wants)
        snprintf(ret, size, "%s (asks for %s)", has, size_format(wants, asked));
    else
        snprintf(ret, size, "%s", space ? has : "");
    return ret;
}

static void print_agent_volumes(const json_t *volumes)
{
    static const char *const headers[] = {"VOLUME",    "STATE", "DEVICE",    ">QSD",
                                          ">RESTARTS", "SPACE", "ATTACHMENT"};
    struct text_table *t;
    size_t i;
    json_t *v;

    if (json_array_size(volumes) == 0)
        return;
    printf("\n");
    t = text_table_new(headers, 7);
    json_array_foreach(volumes, i, v)
    {
        char pid[24] = "", restarts[24], space[80];
        if (js_get_u64(v, "qsd_pid"))
            snprintf(pid, sizeof pid, "%" PRIu64, js_get_u64(v, "qsd_pid"));
        snprintf(restarts, sizeof restarts, "%" PRIu64, js_get_u64(v, "qsd_restarts"));
        text_table_row(t, (const char *[]){js_get_text(v, "name"), js_get_text(v, "state"),
                                           js_get_text(v, "device"), pid, restarts,
                                           space_text(v, space, sizeof space),
                                           js_get_text(v, "attachment_id")});
    }
    text_table_print(t, 0);
}

static void print_agent(const json_t *s)
{
    uint64_t term = js_get_u64(s, "term");
    char age[32];

    printf("node         %s (host %" PRIu64 ", generation %" PRIu64 ", run %" PRIu64 ")\n",
           js_get_text(s, "node"), js_get_u64(s, "host_id"), js_get_u64(s, "generation"),
           js_get_u64(s, "run"));
    printf("state        %s\n", js_get_text(s, "state"));
    if (*js_get_text(s, "condition"))
        printf("condition    %s\n", js_get_text(s, "condition"));
    printf("pool         %s (%s)\n", js_get_text(s, "pool"), js_get_text(s, "pool_id"));
    printf("device       %s\n", js_get_text(s, "device"));
    if (term)
        printf("coordinator  host %" PRIu64 ", term %" PRIu64 ", heard %s ago\n",
               js_get_u64(s, "coordinator_host_id"), term,
               text_age(js_get_u64(s, "last_heard_ms"), age));
    else
        printf("coordinator  none heard yet\n");
    print_agent_volumes(json_object_get(s, "volumes"));
}

/* Asks the agent (or coordinator) itself; CLI_OK and the answer, or the exit code. */
static int ask_local(const struct cli *cli, const char *daemon, Lunar__LocalRequest *request,
                     Lunar__Response__OpCase want, Lunar__Envelope **ret)
{
    struct client *client;
    int rc = request_open(cli, daemon, &client);
    if (rc != CLI_OK)
        return rc;
    rc = request_local(cli, client, request, want, ret);
    client_close(client);
    return rc;
}

int cmd_node_status(struct cli *cli, int argc, char **argv)
{
    Lunar__Envelope *answer = NULL;
    if (!cli_parse(cli, NULL, 0, 0, 0, argc, argv))
        return cli->exit_code;
    Lunar__AgentStatusGet status = LUNAR__AGENT_STATUS_GET__INIT;
    Lunar__LocalRequest request = LUNAR__LOCAL_REQUEST__INIT;
    request.op_case = LUNAR__LOCAL_REQUEST__OP_AGENT_STATUS;
    request.agent_status = &status;
    int rc = ask_local(cli, "agent", &request, LUNAR__RESPONSE__OP_AGENT_STATUS, &answer);
    if (rc == CLI_OK)
        rc = output_emit(cli, js_proto(&answer->response->agent_status->base), print_agent);
    envelope_free(answer);
    return rc;
}

/* The agent's word for this node, if there is an agent: quietly, and not for long. */
static bool ask_node_name(const struct cli *cli, char *ret, size_t size)
{
    Lunar__Envelope *answer = request_agent_status(cli, IDENTITY_TIMEOUT_MS);

    if (answer)
        snprintf(ret, size, "%s", answer->response->agent_status->node);
    bool known = answer && *ret != '\0';
    envelope_free(answer);
    return known;
}

static void print_identity(const json_t *doc)
{
    printf("%s\n", js_get_text(doc, "host_name"));
}

int cmd_node_identity(struct cli *cli, int argc, char **argv)
{
    const char *node = NULL;
    bool offline = false;
    const struct cli_option options[] = {
        {"node", 0, CLI_TEXT, &node, 0, 0, "NAME",
         "the node's name (default: what the agent says, else the host name)"},
        {"offline", 0, CLI_FLAG, &offline, 0, 0, NULL, "do not ask the agent for the node's name"},
    };
    char name[256], machine[128], host_name[LEASES_NAME_SIZE];
    struct error err = ERROR_INIT;

    if (!cli_parse(cli, options, 2, 0, 0, argc, argv))
        return cli->exit_code;
    if (node)
        snprintf(name, sizeof name, "%s", node);
    else if ((offline || !ask_node_name(cli, name, sizeof name)) &&
             gethostname(name, sizeof name) < 0)
        return cli_fail(
            cli, error_set(&err, LUNAR_E_NOT_FOUND, "this machine has no host name; use --node"),
            &err);
    name[sizeof name - 1] = '\0';
    if (!*name || strlen(name) > MESSAGE_NAME_MAX)
        return cli_usage(cli, "a node's name has 1 to %u bytes", MESSAGE_NAME_MAX);
    int rc = leases_machine_id(machine, sizeof machine, &err);
    if (rc < 0)
        return cli_fail(cli, rc, &err);
    leases_host_name(name, machine, host_name);
    json_t *doc = json_object();
    js_set(doc, "node", js_text(name));
    js_set(doc, "machine_id", js_text(machine));
    js_set(doc, "host_name", js_text(host_name));
    return output_emit(cli, doc, print_identity);
}

static void print_done(const json_t *doc)
{
    printf("%s\n", js_get_text(doc, "done"));
}

static int emit_done(const struct cli *cli, const char *text)
{
    json_t *doc = json_object();
    js_set(doc, "done", js_text(text));
    return output_emit(cli, doc, print_done);
}

int cmd_node_leave(struct cli *cli, int argc, char **argv)
{
    bool with_volumes = false;
    const struct cli_option options[] = {
        {"with-volumes", 0, CLI_FLAG, &with_volumes, 0, 0, NULL,
         "for a reboot: write file systems out, then fence off what is attached"}};
    Lunar__Envelope *answer = NULL;
    Lunar__AgentLeave leave = LUNAR__AGENT_LEAVE__INIT;
    Lunar__LocalRequest request = LUNAR__LOCAL_REQUEST__INIT;
    if (!cli_parse(cli, options, 1, 0, 0, argc, argv))
        return cli->exit_code;
    leave.with_volumes = with_volumes;
    request.op_case = LUNAR__LOCAL_REQUEST__OP_LEAVE;
    request.leave = &leave;
    int rc = ask_local(cli, "agent", &request, LUNAR__RESPONSE__OP__NOT_SET, &answer);
    if (rc == CLI_OK)
        rc = emit_done(cli, "left the pool");
    envelope_free(answer);
    return rc;
}

int cmd_coordinator_resign(struct cli *cli, int argc, char **argv)
{
    Lunar__Envelope *answer = NULL;
    if (!cli_parse(cli, NULL, 0, 0, 0, argc, argv))
        return cli->exit_code;
    Lunar__Resign resign = LUNAR__RESIGN__INIT;
    Lunar__LocalRequest request = LUNAR__LOCAL_REQUEST__INIT;
    request.op_case = LUNAR__LOCAL_REQUEST__OP_RESIGN;
    request.resign = &resign;
    int rc = ask_local(cli, "coordinator", &request, LUNAR__RESPONSE__OP__NOT_SET, &answer);
    if (rc == CLI_OK)
        rc = emit_done(cli, "the coordinator gave its lease back");
    envelope_free(answer);
    return rc;
}
