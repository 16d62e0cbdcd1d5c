/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every protobuf message, as it comes from a page or a local socket. The first byte says how the
 * rest is meant: raw wire format, or a script of pb_writer.h for one of the envelope's bodies.
 *
 * What must hold beyond "no crash": what envelope_unpack accepts has one body with an id where an
 * answer must find its way back, every text ends and keeps its bound, every id has 16 bytes or
 * none; packed and unpacked again it is accepted and packs to the same bytes. A refusal says why.
 * Memory is bounded by -malloc_limit_mb and, for hostile lists, by envelope_unpack itself.
 */
#include "diskrpc/message.h"
#include "fuzz/fuzz.h"
#include "fuzz/pb_writer.h"

static struct uuid any_id(const char *field, uint8_t which)
{
    (void)field;
    return fuzz_uuid(which);
}

static void check_repack(const Lunar__Envelope *e)
{
    Lunar__Envelope *again;
    uint8_t *first, *second;
    uint32_t first_len, second_len;
    struct error err = ERROR_INIT;

    if (envelope_pack(e, &first, &first_len, &err) < 0) {
        MUST(err.code == LUNAR_E_TOO_BIG, "only a message that is too long does not pack");
        return;
    }
    MUST(envelope_unpack(first, first_len, &again, &err) == 0, "what was accepted is again");
    MUST(envelope_pack(again, &second, &second_len, &err) == 0, "and packs again");
    MUST(first_len == second_len && memcmp(first, second, first_len) == 0, "to the same bytes");
    envelope_free(again);
    free(first);
    free(second);
}

static void check_body(const Lunar__Envelope *e)
{
    ProtobufCBinaryData id = {.len = 16};

    switch (e->body_case) {
    case LUNAR__ENVELOPE__BODY_REQUEST:
        id = e->request->id;
        break;
    case LUNAR__ENVELOPE__BODY_RESPONSE:
        id = e->response->id;
        break;
    case LUNAR__ENVELOPE__BODY_COMMAND:
        id = e->command->id;
        break;
    case LUNAR__ENVELOPE__BODY_RESULT:
        id = e->result->id;
        MUST(strlen(e->result->device) <= MESSAGE_TEXT_MAX, "a device path keeps its bound");
        break;
    case LUNAR__ENVELOPE__BODY_PROGRESS:
        id = e->progress->id;
        break;
    default:
        MUST(e->body_case == LUNAR__ENVELOPE__BODY_LOCAL_REQUEST, "there is a body");
    }
    MUST(id.len == sizeof(struct uuid), "an answer can find its way back");
}

static void try_bytes(const uint8_t *bytes, uint32_t len)
{
    Lunar__Envelope *e = NULL;
    struct error err = ERROR_INIT;

    int rc = envelope_unpack(bytes, len, &e, &err);
    if (rc < 0) {
        MUST(err.code == rc && err.text[0] && !e, "a refusal says why");
        return;
    }
    check_body(e);
    check_repack(e);
    envelope_free(e);
}

/* A response whose list of volumes is the input, over and over. */
static uint32_t fill_frame(const struct feed *f, uint8_t *room)
{
    static const uint8_t head[] = {0x12, 0x80, 0x80, 0x3c, 0x3a, 0xfc, 0xff, 0x3b};
    const uint32_t len = sizeof head + 0xefffcu;
    memcpy(room, head, sizeof head); /* Envelope.response of 0xf0000 bytes, its volumes 4 less */
    for (uint32_t at = sizeof head; at < len; at++)
        room[at] = f->left ? f->at[(at - sizeof head) % f->left] : 0;
    return len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const bodies[] = {"request", "response", "command", "result",
                                         "local_request"};
    static uint8_t room[FRAME_MAX];
    struct feed f = {data, size};
    struct pb_writer w = {.bytes = room, .room = sizeof room, .feed = &f, .id = any_id};
    uint8_t how = feed_u8(&f);

    if (how >= 126 && how < 128 && f.left <= 8) {
        try_bytes(room, fill_frame(&f, room));
        return 0;
    }
    if (how < 128) {
        try_bytes(f.at, (uint32_t)f.left);
        return 0;
    }
    do /* more than one body: the last one counts, and the former must be freed */
        pb_write_body(&w, &lunar__envelope__descriptor, bodies[how % 5]);
    while (f.left > 0 && (how = feed_u8(&f)) > 240);
    try_bytes(room, w.len);
    return 0;
}
