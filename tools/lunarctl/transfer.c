/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A volume that this command makes, attaches here, and gives up again. Everything travels by ids
 * (SAFETY 6). Failure modes: no answer in time: the same request again, under the same id; BUSY
 * where something else is still under way with the volume: again, for a while. A coordinator that
 * does not know imports may answer with a volume that stood before: it is left alone.
 */
#include "transfer.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/helper.h"
#include "convert.h"
#include "diskrpc/message.h"

#define AGAIN_MS    500
#define PATIENCE_MS 30000 /* for BUSY and a device that somebody is looking at */

int transfer_call(struct client *client, Lunar__Request *request, Lunar__Response__OpCase op_case,
                  Lunar__Envelope **ret, struct error *err)
{
    struct uuid id = uuid_random();
    int64_t end = clock_ms() + PATIENCE_MS;
    int rc;

    for (;;) {
        request->id = uuid_to_pb(&id);
        rc = request_call_quietly(client, request, op_case, ret, err);
        bool again = rc == LUNAR_E_INDETERMINATE || rc == LUNAR_E_BUSY || rc == LUNAR_E_IN_USE;
        if ((rc != LUNAR_E_TIMEOUT && !(again && clock_ms() < end)) || convert_stopped())
            return rc;
        if (rc == LUNAR_E_TIMEOUT)
            cli_progress("no answer yet: asking again");
        poll(NULL, 0, AGAIN_MS);
    }
}

int transfer_create(struct transfer *t, Lunar__VolumeCreate *create, struct error *err)
{
    Lunar__Envelope *answer = NULL;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    request.op_case = LUNAR__REQUEST__OP_VOLUME_CREATE;
    request.volume_create = create;
    int rc = transfer_call(t->client, &request, LUNAR__RESPONSE__OP_VOLUME, &answer, err);
    if (rc == 0 && create->importing && strcmp(answer->response->volume->state, "importing") != 0)
        rc = error_set(err, LUNAR_E_UNSUPPORTED,
                       "the coordinator does not know imports: is it of another version?");
    if (rc == 0) {
        t->volume_id = uuid_from_pb(answer->response->volume->volume_id);
        t->ours = true;
    }
    envelope_free(answer);
    return rc;
}

int transfer_attach(struct transfer *t, bool importing, struct error *err)
{
    Lunar__Envelope *answer = NULL;
    Lunar__VolumeAttach attach = LUNAR__VOLUME_ATTACH__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    attach.volume_id = uuid_to_pb(&t->volume_id);
    attach.importing = importing;
    request.op_case = LUNAR__REQUEST__OP_VOLUME_ATTACH;
    request.volume_attach = &attach;
    int rc = transfer_call(t->client, &request, LUNAR__RESPONSE__OP_VOLUME, &answer, err);
    const Lunar__Volume *v = rc == 0 ? answer->response->volume : NULL;
    if (v && (v->n_attachments != 1 || !v->device[0]))
        rc = error_set(err, LUNAR_E_INDETERMINATE, "the answer names no device");
    if (rc == 0) {
        t->attachment_id = uuid_from_pb(v->attachments[0]->attachment_id);
        snprintf(t->device, sizeof t->device, "%s", v->device);
    }
    envelope_free(answer);
    return rc;
}

/* The attachment of an attach whose answer never came: this command alone attaches the volume. */
static void find_attachment(struct transfer *t)
{
    Lunar__Envelope *answer = NULL;
    Lunar__VolumeGet get = LUNAR__VOLUME_GET__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    get.volume_id = uuid_to_pb(&t->volume_id);
    request.op_case = LUNAR__REQUEST__OP_VOLUME_GET;
    request.volume_get = &get;
    int rc = request_call_quietly(t->client, &request, LUNAR__RESPONSE__OP_VOLUME, &answer, NULL);
    if (rc == 0 && answer->response->volume->n_attachments == 1)
        t->attachment_id = uuid_from_pb(answer->response->volume->attachments[0]->attachment_id);
    envelope_free(answer);
}

static int give_up(struct transfer *t, Lunar__Request *request, struct error *err)
{
    Lunar__Envelope *answer = NULL;
    int64_t end = clock_ms() + PATIENCE_MS;
    int rc;

    /* A signal that is pending does not end this: it is what undoes. */
    while ((rc = request_call_quietly(t->client, request, LUNAR__RESPONSE__OP__NOT_SET, &answer,
                                      err)) < 0 &&
           (rc == LUNAR_E_TIMEOUT || rc == LUNAR_E_INDETERMINATE || rc == LUNAR_E_BUSY ||
            rc == LUNAR_E_IN_USE) &&
           clock_ms() < end)
        poll(NULL, 0, AGAIN_MS);
    envelope_free(answer);
    return rc;
}

int transfer_detach(struct transfer *t, struct error *err)
{
    Lunar__VolumeDetach detach = LUNAR__VOLUME_DETACH__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    if (uuid_is_zero(&t->attachment_id) && t->ours)
        find_attachment(t);
    if (uuid_is_zero(&t->attachment_id))
        return 0;
    detach.volume_id = uuid_to_pb(&t->volume_id);
    detach.attachment_id = uuid_to_pb(&t->attachment_id);
    request.op_case = LUNAR__REQUEST__OP_VOLUME_DETACH;
    request.volume_detach = &detach;
    int rc = give_up(t, &request, err);
    if (rc == 0)
        memset(&t->attachment_id, 0, sizeof t->attachment_id);
    return rc;
}

int transfer_delete(struct transfer *t, struct error *err)
{
    Lunar__VolumeDelete delete_op = LUNAR__VOLUME_DELETE__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    if (uuid_is_zero(&t->volume_id))
        return 0;
    int rc = transfer_detach(t, err);
    delete_op.volume_id = uuid_to_pb(&t->volume_id);
    request.op_case = LUNAR__REQUEST__OP_VOLUME_DELETE;
    request.volume_delete = &delete_op;
    if (rc == 0)
        rc = give_up(t, &request, err);
    if (rc == 0)
        memset(&t->volume_id, 0, sizeof t->volume_id);
    return rc;
}
