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

int request_open(const struct cli *cli, const char *name, struct client **ret)
{
    char path[256];
    struct error err = ERROR_INIT;
    int rc =
        client_open(cli_socket(cli, name, path, sizeof path), cli->timeout_s * 1000, ret, &err);
    return rc < 0 ? cli_fail(cli, rc, &err) : CLI_OK;
}

static int check_answer(const struct cli *cli, Lunar__Envelope *answer,
                        Lunar__Response__OpCase op_case, Lunar__Envelope **ret)
{
    const Lunar__Response *r = answer->response;
    struct error err = ERROR_INIT;
    int code = 0;

    if (r->error && r->error->code != 0)
        code = error_set(&err, r->error->code, "%s",
                         *r->error->text ? r->error->text : error_text(r->error->code));
    else if (op_case != LUNAR__RESPONSE__OP__NOT_SET && r->op_case != op_case)
        code =
            error_set(&err, LUNAR_E_INDETERMINATE,
                      "the request was answered by something else than its result: do lunarctl and "
                      "the daemons have the same version?");
    if (code == 0) {
        *ret = answer;
        return CLI_OK;
    }
    envelope_free(answer);
    return cli_fail(cli, code, &err);
}

int request_call(const struct cli *cli, struct client *client, Lunar__Request *request,
                 Lunar__Response__OpCase op_case, Lunar__Envelope **ret)
{
    struct uuid id = uuid_random();
    struct error err = ERROR_INIT;
    Lunar__Envelope envelope = LUNAR__ENVELOPE__INIT;
    Lunar__Envelope *answer = NULL;

    request->id = uuid_to_pb(&id);
    envelope.body_case = LUNAR__ENVELOPE__BODY_REQUEST;
    envelope.request = request;
    int rc = client_call(client, &envelope, &id, &answer, &err);
    return rc < 0 ? cli_fail(cli, rc, &err) : check_answer(cli, answer, op_case, ret);
}

int request_local(const struct cli *cli, struct client *client, Lunar__LocalRequest *request,
                  Lunar__Response__OpCase op_case, Lunar__Envelope **ret)
{
    struct error err = ERROR_INIT;
    Lunar__Envelope envelope = LUNAR__ENVELOPE__INIT;
    Lunar__Envelope *answer = NULL;

    envelope.body_case = LUNAR__ENVELOPE__BODY_LOCAL_REQUEST;
    envelope.local_request = request;
    int rc = client_call(client, &envelope, NULL, &answer, &err);
    return rc < 0 ? cli_fail(cli, rc, &err) : check_answer(cli, answer, op_case, ret);
}
