/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A glance at a packed envelope: which body, which operation, which id, which error, which volume.
 *
 * The ring of trace.h wants that of every message that passes, so it must cost next to nothing and
 * allocate nothing: the protobuf wire format is walked over, not unpacked. Happy path: envelope ->
 * its body -> the body's id, error and operation -> the operation's volume_id; a handful of fields
 * each. Failure modes: bytes that are no protobuf, lengths that point outside, more fields than any
 * message of ours has: nothing is told at all. What is told is a label for people; whoever acts on
 * a message has unpacked and checked it (message.h).
 */
#include <stdio.h>
#include <string.h>

#include "diskrpc/message.h"

/* Our bodies have at most four fields; more are tolerated for versions to come, but not so many
 * that hostile bytes could make the walk long. */
#define FIELDS_MAX 16u
/* Of protobuf's wire types. */
#define WIRE_VARINT  0u
#define WIRE_FIXED64 1u
#define WIRE_BYTES   2u
#define WIRE_FIXED32 5u

struct walk {
    const uint8_t *at, *end;
    uint32_t n_fields;
    bool bad;
};

struct field {
    uint32_t number;
    uint64_t value; /* of a varint */
    ProtobufCBinaryData bytes;
    bool is_bytes;
};

static struct walk walk_over(ProtobufCBinaryData bytes)
{
    return (struct walk){.at = bytes.data, .end = bytes.data + bytes.len};
}

static uint64_t take_varint(struct walk *w)
{
    uint64_t value = 0;

    for (unsigned shift = 0; shift < 64 && w->at < w->end; shift += 7) {
        uint8_t byte = *w->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return value;
    }
    w->bad = true;
    return 0;
}

static const uint8_t *take_bytes(struct walk *w, uint64_t len)
{
    const uint8_t *at = w->at;

    if (w->bad || len > (uint64_t)(w->end - w->at)) {
        w->bad = true;
        return NULL;
    }
    w->at += len;
    return at;
}

/* The next field; false at the end, and where the bytes make no sense (`bad`). */
static bool next_field(struct walk *w, struct field *ret)
{
    if (w->bad || w->at == w->end)
        return false;
    uint64_t tag = take_varint(w);
    *ret = (struct field){.number = (uint32_t)(tag >> 3)};
    if (++w->n_fields > FIELDS_MAX || tag > UINT32_MAX || ret->number == 0)
        w->bad = true;
    switch (tag & 7) {
    case WIRE_VARINT:
        ret->value = take_varint(w);
        break;
    case WIRE_BYTES:
        ret->is_bytes = true;
        ret->bytes.len = (size_t)take_varint(w);
        ret->bytes.data = (uint8_t *)(uintptr_t)take_bytes(w, ret->bytes.len);
        break;
    case WIRE_FIXED64:
        take_bytes(w, 8);
        break;
    case WIRE_FIXED32:
        take_bytes(w, 4);
        break;
    default:
        w->bad = true;
    }
    return !w->bad;
}

/* sint32 is zigzag: 0, -1, 1, -2, ... */
static int32_t zigzag(uint64_t value)
{
    return (int32_t)((uint32_t)(value >> 1) ^ (0u - (uint32_t)(value & 1)));
}

static bool peek_error(ProtobufCBinaryData bytes, struct envelope_head *ret)
{
    struct walk w = walk_over(bytes);
    struct field f;

    while (next_field(&w, &f))
        if (f.number == 1 && !f.is_bytes)
            ret->error = zigzag(f.value);
    return !w.bad;
}

/* The number of the field that names the volume, in an operation that has one; else 0. */
static uint32_t volume_field(uint32_t body, uint32_t op)
{
    if (body == LUNAR__ENVELOPE__BODY_COMMAND)
        return 1;
    if (body == LUNAR__ENVELOPE__BODY_RESPONSE)
        return op == LUNAR__RESPONSE__OP_VOLUME ? 1 : 0;
    if (body != LUNAR__ENVELOPE__BODY_REQUEST)
        return 0;
    switch (op) {
    case LUNAR__REQUEST__OP_VOLUME_GET:
        return 2;
    case LUNAR__REQUEST__OP_VOLUME_ATTACH:
    case LUNAR__REQUEST__OP_VOLUME_DETACH:
    case LUNAR__REQUEST__OP_VOLUME_DELETE:
    case LUNAR__REQUEST__OP_VOLUME_TRIM:
        return 1;
    default:
        return 0;
    }
}

static void peek_volume(ProtobufCBinaryData bytes, uint32_t number, struct envelope_head *ret)
{
    struct walk w = walk_over(bytes);
    struct field f;

    while (number != 0 && next_field(&w, &f))
        if (f.number == number && f.is_bytes) {
            ret->volume = uuid_from_pb(f.bytes);
            return;
        }
}

/* Every body but the local one: the id is field 1, and the error of an answer is field 2. */
static bool peek_body(ProtobufCBinaryData bytes, struct envelope_head *ret)
{
    bool answer =
        ret->body == LUNAR__ENVELOPE__BODY_RESPONSE || ret->body == LUNAR__ENVELOPE__BODY_RESULT;
    bool has_op =
        ret->body != LUNAR__ENVELOPE__BODY_RESULT && ret->body != LUNAR__ENVELOPE__BODY_PROGRESS;
    bool local = ret->body == LUNAR__ENVELOPE__BODY_LOCAL_REQUEST;
    struct walk w = walk_over(bytes);
    struct field f;

    while (next_field(&w, &f)) {
        if (!f.is_bytes)
            continue;
        if (f.number == 1 && !local) {
            ret->id = uuid_from_pb(f.bytes);
        } else if (f.number == 2 && answer) {
            if (!peek_error(f.bytes, ret))
                return false;
        } else if (has_op) {
            ret->op = f.number;
            peek_volume(f.bytes, volume_field(ret->body, f.number), ret);
        }
    }
    return !w.bad;
}

void envelope_peek(const uint8_t *bytes, uint32_t len, struct envelope_head *ret)
{
    struct walk w = walk_over((ProtobufCBinaryData){len, (uint8_t *)(uintptr_t)bytes});
    struct field f;
    bool good = true;

    memset(ret, 0, sizeof *ret);
    while (good && next_field(&w, &f)) {
        if (!f.is_bytes || f.number > LUNAR__ENVELOPE__BODY_LOCAL_REQUEST)
            continue;
        memset(ret, 0, sizeof *ret); /* of two bodies the later counts, as in protobuf */
        ret->body = f.number;
        good = peek_body(f.bytes, ret);
    }
    if (!good || w.bad)
        memset(ret, 0, sizeof *ret);
}

/* A oneof's cases are field numbers; the name of one. */
static const char *field_name(const ProtobufCMessageDescriptor *d, uint32_t number)
{
    const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field(d, number);
    return f ? f->name : "?";
}

char *envelope_kind(uint32_t body, uint32_t op, char buffer[ENVELOPE_KIND_SIZE])
{
    static const ProtobufCMessageDescriptor *const with_op[] = {
        [LUNAR__ENVELOPE__BODY_REQUEST] = &lunar__request__descriptor,
        [LUNAR__ENVELOPE__BODY_RESPONSE] = &lunar__response__descriptor,
        [LUNAR__ENVELOPE__BODY_COMMAND] = &lunar__command__descriptor,
        [LUNAR__ENVELOPE__BODY_RESULT] = NULL,
        [LUNAR__ENVELOPE__BODY_LOCAL_REQUEST] = &lunar__local_request__descriptor,
        [LUNAR__ENVELOPE__BODY_PROGRESS] = NULL,
    };
    bool known = body != 0 && body < sizeof with_op / sizeof *with_op;
    bool has_op = known && with_op[body] && op != 0;

    snprintf(buffer, ENVELOPE_KIND_SIZE, "%s%s%s",
             known ? field_name(&lunar__envelope__descriptor, body) : "unknown", has_op ? " " : "",
             has_op ? field_name(with_op[body], op) : "");
    return buffer;
}
