/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request, one answer, one exit code.
 *
 * Happy path: a fresh id, client_call, a Response without an error and with the body that was asked
 * for. Failure modes: what client.h lists, an error that the coordinator or the agent reports (its
 * code decides between 1 and 3), and a body of another kind (an agent of another version: outcome
 * unknown, because the request was carried out).
 */
#include "request.h"

#include "base/uuid.h"
#include "diskrpc/message.h"

#define ASK_AGENT_MS 2000
/* A coordinator rewrites each node's page every second or so. */
#define SILENT_MS 10000

int request_open(const struct cli *cli, const char *name, struct client **ret)
{
    char path[256];
    struct error err = ERROR_INIT;
    int rc =
        client_open(cli_socket(cli, name, path, sizeof path), cli->timeout_s * 1000, ret, &err);
    return rc < 0 ? cli_fail(cli, rc, &err) : CLI_OK;
}

/* 0 and the answer is the caller's; else its failure, and it is freed. */
static int check_answer(Lunar__Envelope *answer, Lunar__Response__OpCase op_case,
                        Lunar__Envelope **ret, struct error *err)
{
    const Lunar__Response *r = answer->response;
    int code = 0;

    if (r->error && r->error->code != 0)
        code = error_set(err, r->error->code, "%s",
                         *r->error->text ? r->error->text : error_text(r->error->code));
    else if (op_case != LUNAR__RESPONSE__OP__NOT_SET && r->op_case != op_case)
        code =
            error_set(err, LUNAR_E_INDETERMINATE,
                      "the request was answered by something else than its result: do lunarctl and "
                      "the daemons have the same version?");
    if (code == 0)
        *ret = answer;
    else
        envelope_free(answer);
    return code;
}

int request_local_quietly(struct client *client, Lunar__LocalRequest *request,
                          Lunar__Response__OpCase op_case, Lunar__Envelope **ret, struct error *err)
{
    Lunar__Envelope envelope = LUNAR__ENVELOPE__INIT, *answer = NULL;

    envelope.body_case = LUNAR__ENVELOPE__BODY_LOCAL_REQUEST;
    envelope.local_request = request;
    int rc = client_call(client, &envelope, NULL, &answer, err);
    return rc < 0 ? rc : check_answer(answer, op_case, ret, err);
}

int request_local(const struct cli *cli, struct client *client, Lunar__LocalRequest *request,
                  Lunar__Response__OpCase op_case, Lunar__Envelope **ret)
{
    struct error err = ERROR_INIT;
    int rc = request_local_quietly(client, request, op_case, ret, &err);
    return rc < 0 ? cli_fail(cli, rc, &err) : CLI_OK;
}

Lunar__Envelope *request_agent_status(const struct cli *cli, uint64_t timeout_ms)
{
    Lunar__Envelope *answer = NULL;
    Lunar__LocalRequest request = LUNAR__LOCAL_REQUEST__INIT;
    Lunar__AgentStatusGet get = LUNAR__AGENT_STATUS_GET__INIT;
    struct client *client;
    char path[256];

    if (client_open(cli_socket(cli, "agent", path, sizeof path), timeout_ms, &client, NULL) < 0)
        return NULL;
    request.op_case = LUNAR__LOCAL_REQUEST__OP_AGENT_STATUS;
    request.agent_status = &get;
    (void)request_local_quietly(client, &request, LUNAR__RESPONSE__OP_AGENT_STATUS, &answer, NULL);
    client_close(client);
    return answer;
}

/* What this node's agent knows of a coordinator: that is where most silences come from. */
static bool coordinator_is_silent(const struct cli *cli)
{
    Lunar__Envelope *answer = request_agent_status(cli, ASK_AGENT_MS);
    const Lunar__AgentStatus *s = answer ? answer->response->agent_status : NULL;
    bool silent = s && (s->term == 0 || s->last_heard_ms > SILENT_MS);

    envelope_free(answer);
    return silent;
}

static void explain_timeout(const struct cli *cli, const Lunar__Request *request, struct error *err)
{
    bool reads = request->op_case == LUNAR__REQUEST__OP_PING ||
                 request->op_case == LUNAR__REQUEST__OP_STATUS_GET ||
                 request->op_case == LUNAR__REQUEST__OP_NODE_LIST ||
                 request->op_case == LUNAR__REQUEST__OP_NODE_INSPECT ||
                 request->op_case == LUNAR__REQUEST__OP_VOLUME_LIST ||
                 request->op_case == LUNAR__REQUEST__OP_VOLUME_GET ||
                 request->op_case == LUNAR__REQUEST__OP_SNAPSHOT_LIST ||
                 request->op_case == LUNAR__REQUEST__OP_TREE_GET;
    const char *then =
        reads ? "" : "; what was asked for may still be done, the same command again is safe";

    if (coordinator_is_silent(cli))
        error_set(err, LUNAR_E_TIMEOUT,
                  "no answer within %llu s: no coordinator is heard on this node; is "
                  "lunar-coordinator running "
                  "on a node of this pool?%s",
                  (unsigned long long)cli->timeout_s, then);
    else
        error_set(err, LUNAR_E_TIMEOUT, "no answer within %llu s%s",
                  (unsigned long long)cli->timeout_s, then);
}

static int call(struct client *client, Lunar__Request *request, Lunar__Envelope **ret,
                struct error *err)
{
    const ProtobufCBinaryData given = request->id;
    struct uuid id = given.len ? uuid_from_pb(given) : uuid_random();
    Lunar__Envelope envelope = LUNAR__ENVELOPE__INIT;

    request->id = uuid_to_pb(&id);
    envelope.body_case = LUNAR__ENVELOPE__BODY_REQUEST;
    envelope.request = request;
    int rc = client_call(client, &envelope, &id, ret, err);
    request->id = given;
    return rc;
}

int request_call_quietly(struct client *client, Lunar__Request *request,
                         Lunar__Response__OpCase op_case, Lunar__Envelope **ret, struct error *err)
{
    Lunar__Envelope *answer = NULL;
    int rc = call(client, request, &answer, err);
    return rc < 0 ? rc : check_answer(answer, op_case, ret, err);
}

int request_call(const struct cli *cli, struct client *client, Lunar__Request *request,
                 Lunar__Response__OpCase op_case, Lunar__Envelope **ret)
{
    struct error err = ERROR_INIT;
    Lunar__Envelope *answer = NULL;

    int rc = call(client, request, &answer, &err);
    if (rc == LUNAR_E_TIMEOUT)
        explain_timeout(cli, request, &err);
    if (rc == 0)
        rc = check_answer(answer, op_case, ret, &err);
    return rc < 0 ? cli_fail(cli, rc, &err) : CLI_OK;
}
