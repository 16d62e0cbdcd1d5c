/* SPDX-License-Identifier: Apache-2.0 */
/* A glance at packed bytes says the same as unpacking them, and says nothing of hostile ones. */
#include "diskrpc/message.h"

#include <stdlib.h>

#include "support/test.h"

static const struct uuid id = {{1, 2, 3}}, volume_id = {{9, 8, 7}};

static struct envelope_head peek_packed(const Lunar__Envelope *e)
{
    struct envelope_head head;
    uint8_t *bytes;
    uint32_t len;
    if (envelope_pack(e, &bytes, &len, NULL) < 0)
        abort();
    envelope_peek(bytes, len, &head);
    free(bytes);
    return head;
}

static Lunar__Envelope *attach_request(void)
{
    static Lunar__VolumeAttach attach = LUNAR__VOLUME_ATTACH__INIT;
    static Lunar__Request request = LUNAR__REQUEST__INIT;
    static Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    attach.volume_id = uuid_to_pb(&volume_id);
    attach.node = (char *)(uintptr_t) "node-b";
    request.id = uuid_to_pb(&id);
    request.op_case = LUNAR__REQUEST__OP_VOLUME_ATTACH;
    request.volume_attach = &attach;
    e.body_case = LUNAR__ENVELOPE__BODY_REQUEST;
    e.request = &request;
    return &e;
}

static void a_request_shows_its_operation_id_and_volume(void)
{
    struct envelope_head head = peek_packed(attach_request());
    char kind[ENVELOPE_KIND_SIZE];
    CHECK_EQ(head.body, LUNAR__ENVELOPE__BODY_REQUEST);
    CHECK_EQ(head.op, LUNAR__REQUEST__OP_VOLUME_ATTACH);
    CHECK_EQ(head.error, 0);
    CHECK(uuid_equal(&head.id, &id));
    CHECK(uuid_equal(&head.volume, &volume_id));
    CHECK_STR(envelope_kind(head.body, head.op, kind), "request volume_attach");
}

static void an_answer_shows_its_error(void)
{
    Lunar__Error error = LUNAR__ERROR__INIT;
    Lunar__Result result = LUNAR__RESULT__INIT;
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    char kind[ENVELOPE_KIND_SIZE];
    error.code = LUNAR_E_IN_USE;
    error.text = (char *)(uintptr_t) "somebody has it open";
    result.id = uuid_to_pb(&id);
    result.error = &error;
    result.device = (char *)(uintptr_t) "/dev/vdx";
    e.body_case = LUNAR__ENVELOPE__BODY_RESULT;
    e.result = &result;
    struct envelope_head head = peek_packed(&e);
    CHECK_EQ(head.error, LUNAR_E_IN_USE);
    CHECK_EQ(head.op, 0);
    CHECK(uuid_equal(&head.id, &id));
    CHECK_STR(envelope_kind(head.body, head.op, kind), "result");
}

static void a_create_names_no_volume_by_its_id(void)
{
    Lunar__VolumeCreate create = LUNAR__VOLUME_CREATE__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    create.name = (char *)(uintptr_t) "sixteen--letters"; /* as long as an id, and none */
    request.id = uuid_to_pb(&id);
    request.op_case = LUNAR__REQUEST__OP_VOLUME_CREATE;
    request.volume_create = &create;
    e.body_case = LUNAR__ENVELOPE__BODY_REQUEST;
    e.request = &request;
    struct envelope_head head = peek_packed(&e);
    CHECK_EQ(head.op, LUNAR__REQUEST__OP_VOLUME_CREATE);
    CHECK(uuid_is_zero(&head.volume));
}

static void unknown_numbers_have_a_kind_too(void)
{
    char kind[ENVELOPE_KIND_SIZE];
    CHECK_STR(envelope_kind(0, 0, kind), "unknown");
    CHECK_STR(envelope_kind(77, 5, kind), "unknown");
    CHECK_STR(envelope_kind(LUNAR__ENVELOPE__BODY_REQUEST, 99, kind), "request ?");
    CHECK_STR(envelope_kind(LUNAR__ENVELOPE__BODY_RESPONSE, 0, kind), "response");
}

static bool is_nothing(const struct envelope_head *head)
{
    static const struct envelope_head nothing;
    return memcmp(head, &nothing, sizeof nothing) == 0;
}

static void every_cut_of_an_envelope_tells_nothing(void)
{
    struct envelope_head head;
    uint8_t *bytes;
    uint32_t len;
    CHECK_EQ(envelope_pack(attach_request(), &bytes, &len, NULL), 0);
    for (uint32_t cut = 0; cut < len; cut++) {
        uint8_t *part = malloc(cut + 1); /* of its own size, so that a sanitizer sees an overrun */
        memcpy(part, bytes, cut);
        envelope_peek(part, cut, &head);
        free(part);
        CHECK(is_nothing(&head));
    }
    free(bytes);
}

static void lengths_that_lie_and_endless_fields_tell_nothing(void)
{
    static const uint8_t beyond[] = {0x0a, 0x7f, 0x0a, 0x10, 1};
    static const uint8_t huge[] = {0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1};
    static const uint8_t no_end[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1};
    static const uint8_t group[] = {0x0b, 0x0c};
    static const uint8_t zero_number[] = {0x02, 0x00};
    uint8_t many[2048];
    struct envelope_head head;
    const struct {
        const uint8_t *bytes;
        uint32_t len;
    } all[] = {{beyond, sizeof beyond},           {huge, sizeof huge},
               {no_end, sizeof no_end},           {group, sizeof group},
               {zero_number, sizeof zero_number}, {many, sizeof many}};
    for (size_t i = 0; i < sizeof many; i += 2) {
        many[i] = 0x0a; /* field 1, bytes, none of them: over and over */
        many[i + 1] = 0;
    }
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        envelope_peek(all[i].bytes, all[i].len, &head);
        CHECK(is_nothing(&head));
    }
}

/* Whatever unpacks and is in order is told the same by a glance: over a message with bits changed
 * at random, so that many still are messages. */
static void it_agrees_with_unpacking_on_everything_that_unpacks(void)
{
    uint8_t *bytes, *changed;
    uint32_t len;
    unsigned seed = 7;
    int accepted = 0;
    CHECK_EQ(envelope_pack(attach_request(), &bytes, &len, NULL), 0);
    changed = malloc(len);
    for (int round = 0; round < 50000; round++) {
        Lunar__Envelope *e = NULL;
        struct envelope_head head;
        memcpy(changed, bytes, len);
        for (int n = rand_r(&seed) % 3 + 1; n > 0; n--)
            changed[(uint32_t)rand_r(&seed) % len] ^= (uint8_t)(1 << rand_r(&seed) % 8);
        envelope_peek(changed, len, &head);
        if (envelope_unpack(changed, len, &e, NULL) < 0)
            continue;
        accepted++;
        struct uuid want =
            e->body_case == LUNAR__ENVELOPE__BODY_REQUEST ? uuid_from_pb(e->request->id) : head.id;
        bool known_op = e->body_case == LUNAR__ENVELOPE__BODY_REQUEST;
        CHECK_EQ(head.body, e->body_case);
        CHECK(uuid_equal(&head.id, &want));
        if (known_op)
            CHECK(head.op == e->request->op_case ||
                  e->request->base.n_unknown_fields > 0); /* a later version's field */
        envelope_free(e);
    }
    free(changed);
    free(bytes);
    CHECK(accepted > 1000);
}

TEST_MAIN(TEST(a_request_shows_its_operation_id_and_volume), TEST(an_answer_shows_its_error),
          TEST(a_create_names_no_volume_by_its_id), TEST(unknown_numbers_have_a_kind_too),
          TEST(every_cut_of_an_envelope_tells_nothing),
          TEST(lengths_that_lie_and_endless_fields_tell_nothing),
          TEST(it_agrees_with_unpacking_on_everything_that_unpacks))
