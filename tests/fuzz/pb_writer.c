/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz bytes to wire format; see pb_writer.h.
 *
 * A message is a count and that many fields, each chosen by one byte. Lengths of submessages are
 * put in afterwards as varints of four bytes, longer than they need to be, which the format allows.
 * Nothing fails: what does not fit the room is left out.
 */
#include "fuzz/pb_writer.h"

#define FIELDS_MAX 24u
#define DEPTH_MAX  6

static void put(struct pb_writer *w, const void *bytes, uint32_t len)
{
    if (len > w->room - w->len)
        return;
    memcpy(w->bytes + w->len, bytes, len);
    w->len += len;
}

static void put_varint(struct pb_writer *w, uint64_t value)
{
    uint8_t text[10];
    uint32_t n = 0;
    do {
        text[n++] = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        value >>= 7;
    } while (value);
    put(w, text, n);
}

static uint64_t any_number(struct feed *f)
{
    static const uint64_t known[] = {
        0,          1,          2,           3,          8,
        511,        512,        4096,        1ull << 20, (1ull << 20) + 4096,
        1ull << 25, 1ull << 30, 64ull << 40, INT64_MAX,  INT64_MAX - 511,
        UINT64_MAX, UINT32_MAX};
    uint8_t which = feed_u8(f);
    if (which < sizeof known / sizeof *known)
        return known[which];
    return which < 128 ? feed_u8(f) : which < 192 ? feed_u16(f) : feed_u64(f);
}

static void put_text(struct pb_writer *w)
{
    static const char *const known[] = {"",      "a",     "vol", "disk",    "node1",
                                        "node2", "node3", "/",   "\xc3\xa4"};
    static const char filler[5000] = {0};
    uint8_t which = feed_u8(w->feed);
    const uint8_t *bytes;

    if (which < sizeof known / sizeof *known) {
        put_varint(w, strlen(known[which]));
        put(w, known[which], (uint32_t)strlen(known[which]));
    } else if (which == 255) { /* longer than any bound on a text */
        put_varint(w, sizeof filler);
        uint32_t from = w->len;
        put(w, filler, sizeof filler);
        memset(w->bytes + from, 'x', w->len - from);
    } else {
        size_t n = feed_bytes(w->feed, which, &bytes);
        put_varint(w, n);
        put(w, bytes, (uint32_t)n);
    }
}

static void put_bytes(struct pb_writer *w, const char *name)
{
    uint8_t which = feed_u8(w->feed);
    size_t n = strlen(name);

    if (n < 2 || strcmp(name + n - 2, "id") != 0) { /* a payload: up to 300 KiB of zeroes */
        static const uint8_t zeroes[300u << 10];
        uint32_t len = which < 250 ? which : (uint32_t)(which - 249) * (50u << 10);
        uint32_t left = w->room - w->len;
        len = len + 16 < left ? len : 0;
        put_varint(w, len);
        put(w, zeroes, len);
    } else if (which == 255) {
        put_varint(w, 0);
    } else {
        struct uuid id = w->id(name, which);
        uint32_t len = which == 254 ? 15 : 16;
        put_varint(w, len);
        put(w, id.b, len);
    }
}

static void put_message(struct pb_writer *w, const ProtobufCMessageDescriptor *d, int depth);

static void put_submessage(struct pb_writer *w, const ProtobufCMessageDescriptor *d, int depth)
{
    const uint8_t none[4] = {0x80, 0x80, 0x80, 0};
    if (w->room - w->len < sizeof none)
        return;
    put(w, none, sizeof none);
    uint32_t start = w->len;
    if (depth < DEPTH_MAX)
        put_message(w, d, depth);
    uint32_t len = w->len - start;
    for (uint32_t i = 0; i < 4; i++)
        w->bytes[start - 4 + i] = (uint8_t)((len >> 7 * i & 0x7f) | (i < 3 ? 0x80 : 0));
}

static void put_field(struct pb_writer *w, const ProtobufCFieldDescriptor *field, int depth)
{
    if (w->room - w->len < 16)
        return;
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        put_varint(w, field->id << 3 | 2);
        put_text(w);
        break;
    case PROTOBUF_C_TYPE_BYTES:
        put_varint(w, field->id << 3 | 2);
        put_bytes(w, field->name);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        put_varint(w, field->id << 3 | 2);
        put_submessage(w, field->descriptor, depth + 1);
        break;
    default:
        put_varint(w, field->id << 3);
        put_varint(w, any_number(w->feed));
    }
}

/* Fields one after the other as long as the count says; 0 stands for "each one once, in order". */
static void put_message(struct pb_writer *w, const ProtobufCMessageDescriptor *d, int depth)
{
    uint32_t n = feed_u8(w->feed) % FIELDS_MAX;

    if (d->n_fields == 0)
        return;
    if (n == 0)
        for (unsigned i = 0; i < d->n_fields; i++) {
            /* Of alternatives, one. */
            bool oneof = (d->fields[i].flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0;
            if (!oneof)
                put_field(w, &d->fields[i], depth);
        }
    for (uint32_t k = 0; k < n; k++)
        put_field(w, &d->fields[feed_u8(w->feed) % d->n_fields], depth);
}

void pb_write_body(struct pb_writer *w, const ProtobufCMessageDescriptor *outer, const char *name)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field_by_name(outer, name);
    MUST(field && field->type == PROTOBUF_C_TYPE_MESSAGE, "the field is there and is a message");
    put_varint(w, field->id << 3 | 2);
    put_submessage(w, field->descriptor, 0);
}
