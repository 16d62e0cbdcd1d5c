/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Envelopes: unpack with a cap, then walk by protobuf-c's own descriptors, so that a field added to
 * the .proto is checked from its first day.
 *
 * Happy path: size cap -> protobuf-c -> every string, id and list within bounds -> one body, one
 * op. Failure modes: each is LUNAR_E_INVALID and names the field; the message is freed.
 */
#include "diskrpc/message.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static int check_message(const ProtobufCMessage *message, int depth, struct error *err);

static size_t list_bound(const char *field)
{
    if (strcmp(field, "segments") == 0)
        return MESSAGE_SEGMENTS_MAX;
    return strcmp(field, "layers") == 0 ? MESSAGE_LAYERS_MAX : MESSAGE_LIST_MAX;
}

static size_t text_bound(const char *field)
{
    return strcmp(field, "text") == 0 || strcmp(field, "device") == 0 ||
                   strcmp(field, "condition") == 0
               ? MESSAGE_TEXT_MAX
               : MESSAGE_NAME_MAX;
}

static bool is_id(const char *field)
{
    size_t n = strlen(field);
    return strcmp(field, "id") == 0 || (n > 3 && strcmp(field + n - 3, "_id") == 0);
}

static int check_text(const ProtobufCFieldDescriptor *field, const char *text, struct error *err)
{
    if (text && strnlen(text, text_bound(field->name) + 1) > text_bound(field->name))
        return error_set(err, LUNAR_E_INVALID, "field '%s' is too long", field->name);
    return 0;
}

static int check_bytes(const ProtobufCFieldDescriptor *field, const ProtobufCBinaryData *data,
                       struct error *err)
{
    if (is_id(field->name) && data->len != 0 && data->len != sizeof(struct uuid))
        return error_set(err, LUNAR_E_INVALID, "field '%s' has %zu bytes, not 16", field->name,
                         data->len);
    return 0;
}

static int check_single(const ProtobufCFieldDescriptor *field, const void *member, int depth,
                        struct error *err)
{
    if (field->type == PROTOBUF_C_TYPE_STRING)
        return check_text(field, *(const char *const *)member, err);
    if (field->type == PROTOBUF_C_TYPE_BYTES)
        return check_bytes(field, member, err);
    if (field->type != PROTOBUF_C_TYPE_MESSAGE)
        return 0;
    const ProtobufCMessage *sub = *(ProtobufCMessage *const *)member;
    return sub ? check_message(sub, depth + 1, err) : 0;
}

static int check_list(const ProtobufCFieldDescriptor *field, const ProtobufCMessage *message,
                      int depth, struct error *err)
{
    const char *base = (const char *)message;
    size_t n;
    memcpy(&n, base + field->quantifier_offset, sizeof n);
    if (n > list_bound(field->name))
        return error_set(err, LUNAR_E_INVALID, "list '%s' has %zu entries", field->name, n);
    if (field->type != PROTOBUF_C_TYPE_MESSAGE)
        return n == 0 ? 0 : error_set(err, LUNAR_E_INVALID, "list '%s' is unexpected", field->name);
    ProtobufCMessage **subs;
    memcpy(&subs, base + field->offset, sizeof subs);
    for (size_t i = 0; i < n; i++) {
        int rc = check_message(subs[i], depth + 1, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static bool oneof_selects(const ProtobufCFieldDescriptor *field, const ProtobufCMessage *message)
{
    uint32_t which;
    if (!(field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF))
        return true;
    memcpy(&which, (const char *)message + field->quantifier_offset, sizeof which);
    return which == field->id;
}

static int check_message(const ProtobufCMessage *message, int depth, struct error *err)
{
    const ProtobufCMessageDescriptor *d = message->descriptor;

    if (depth > 8)
        return error_set(err, LUNAR_E_INVALID, "message '%s' is nested too deep", d->short_name);
    for (unsigned i = 0; i < d->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &d->fields[i];
        const void *member = (const char *)message + field->offset;
        int rc = 0;
        if (field->label == PROTOBUF_C_LABEL_REPEATED)
            rc = check_list(field, message, depth, err);
        else if (oneof_selects(field, message))
            rc = check_single(field, member, depth, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static bool has_id(ProtobufCBinaryData id)
{
    return id.len == sizeof(struct uuid);
}

/* One body, one op, and an id wherever the answer must find its way back. A response may be an
 * error without an op. */
static int check_envelope(const Lunar__Envelope *e, struct error *err)
{
    bool ok = false;
    switch (e->body_case) {
    case LUNAR__ENVELOPE__BODY_REQUEST:
        ok = has_id(e->request->id) && e->request->op_case != LUNAR__REQUEST__OP__NOT_SET;
        break;
    case LUNAR__ENVELOPE__BODY_RESPONSE:
        ok = has_id(e->response->id);
        break;
    case LUNAR__ENVELOPE__BODY_COMMAND:
        ok = has_id(e->command->id) && e->command->op_case != LUNAR__COMMAND__OP__NOT_SET;
        break;
    case LUNAR__ENVELOPE__BODY_RESULT:
        ok = has_id(e->result->id);
        break;
    case LUNAR__ENVELOPE__BODY_PROGRESS:
        ok = has_id(e->progress->id);
        break;
    case LUNAR__ENVELOPE__BODY_LOCAL_REQUEST:
        ok = e->local_request->op_case != LUNAR__LOCAL_REQUEST__OP__NOT_SET;
        break;
    default:
        break;
    }
    return ok ? 0
              : error_set(err, LUNAR_E_INVALID, "the message has no body, no operation or no id");
}

/*
 * protobuf-c builds the whole message before anything can be checked, and an empty submessage of
 * two bytes becomes a structure of a hundred: a frame of nothing else would take 100 MiB. The
 * costliest sound message is an attach of MESSAGE_MAX bytes whose segments take 6 bytes each and 56
 * in memory, below 3 MiB.
 */
#define MEMORY_MAX (8u * 1024 * 1024)

static void *bounded_alloc(void *data, size_t size)
{
    size_t *left = data;
    if (size > *left)
        return NULL; /* protobuf-c gives up and frees what it has */
    *left -= size;
    return malloc(size);
}

static void bounded_free(void *data, void *pointer)
{
    (void)data;
    free(pointer);
}

int envelope_unpack(const uint8_t *bytes, uint32_t len, Lunar__Envelope **ret, struct error *err)
{
    if (len == 0 || len > FRAME_MAX)
        return error_set(err, LUNAR_E_INVALID, "a message of %u bytes", len);
    size_t left = MEMORY_MAX;
    ProtobufCAllocator bounded = {bounded_alloc, bounded_free, &left};
    Lunar__Envelope *e = lunar__envelope__unpack(&bounded, len, bytes);
    if (!e)
        return error_set(err, LUNAR_E_INVALID,
                         "the message is not a lunar protobuf, or takes too much memory");
    int rc = check_message(&e->base, 0, err);
    if (rc == 0)
        rc = check_envelope(e, err);
    if (rc < 0) {
        envelope_free(e);
        return rc;
    }
    *ret = e;
    return 0;
}

void envelope_free(Lunar__Envelope *envelope)
{
    if (envelope)
        lunar__envelope__free_unpacked(envelope, NULL);
}

int envelope_pack(const Lunar__Envelope *envelope, uint8_t **ret, uint32_t *ret_len,
                  struct error *err)
{
    size_t len = lunar__envelope__get_packed_size(envelope);
    if (len > FRAME_MAX)
        return error_set(err, LUNAR_E_TOO_BIG, "a message of %zu bytes; the bound is %u", len,
                         FRAME_MAX);
    *ret = malloc(len ? len : 1);
    if (!*ret)
        abort();
    *ret_len = (uint32_t)lunar__envelope__pack(envelope, *ret);
    return 0;
}

ProtobufCBinaryData uuid_to_pb(const struct uuid *id)
{
    return (ProtobufCBinaryData){.len = sizeof id->b, .data = (uint8_t *)(uintptr_t)id->b};
}

struct uuid uuid_from_pb(ProtobufCBinaryData data)
{
    struct uuid id = {{0}};
    if (data.len == sizeof id.b)
        memcpy(id.b, data.data, sizeof id.b);
    return id;
}
