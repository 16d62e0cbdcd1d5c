/* SPDX-License-Identifier: Apache-2.0 */
/* Envelopes: what is well-formed comes back, everything else is refused by name and freed. */
#include "diskrpc/message.h"

#include <stdlib.h>

#include "support/test.h"

static int repack(const Lunar__Envelope *e, Lunar__Envelope **ret, struct error *err)
{
    uint8_t *bytes;
    uint32_t len;
    int rc = envelope_pack(e, &bytes, &len, err);
    if (rc == 0)
        rc = envelope_unpack(bytes, len, ret, err);
    free(bytes);
    return rc;
}

static void a_request_comes_back_as_it_was(void)
{
    struct uuid id = uuid_random();
    Lunar__VolumeCreate create = LUNAR__VOLUME_CREATE__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT, *back = NULL;
    struct error err = ERROR_INIT;

    create.name = (char *)(uintptr_t) "disk";
    create.size = 42;
    request.id = uuid_to_pb(&id);
    request.op_case = LUNAR__REQUEST__OP_VOLUME_CREATE;
    request.volume_create = &create;
    e.body_case = LUNAR__ENVELOPE__BODY_REQUEST;
    e.request = &request;
    CHECK_EQ(repack(&e, &back, &err), 0);
    CHECK_STR(back->request->volume_create->name, "disk");
    CHECK_EQ(back->request->volume_create->size, 42);
    struct uuid got = uuid_from_pb(back->request->id);
    CHECK(uuid_equal(&got, &id));
    envelope_free(back);
}

static void a_request_without_id_or_operation_is_refused(void)
{
    Lunar__Request request = LUNAR__REQUEST__INIT;
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT, *back = NULL;
    struct error err = ERROR_INIT;

    CHECK_EQ(repack(&e, &back, &err), LUNAR_E_INVALID);
    e.body_case = LUNAR__ENVELOPE__BODY_REQUEST;
    e.request = &request;
    CHECK_EQ(repack(&e, &back, &err), LUNAR_E_INVALID);
}

static void a_frame_of_empty_entries_is_refused_before_it_takes_100_mib(void)
{
    const uint8_t head[] = {0x12, 0x80, 0x80, 0x3c, 0x3a, 0xfc, 0xff, 0x3b};
    const uint32_t len = sizeof head + 0xefffc;
    uint8_t *bytes = calloc(1, len); /* response -> volumes -> 491518 volumes of two bytes each */
    Lunar__Envelope *back = NULL;
    struct error err = ERROR_INIT;

    CHECK(bytes != NULL);
    memcpy(bytes, head, sizeof head);
    for (uint32_t at = sizeof head; at < len; at += 2)
        bytes[at] = 0x0a;
    int rc = envelope_unpack(bytes, len, &back, &err);
    free(bytes);
    CHECK_EQ(rc, LUNAR_E_INVALID);
    CHECK(strstr(err.text, "memory") != NULL);
}

static void an_id_of_another_length_is_refused_by_name(void)
{
    struct uuid id = uuid_random();
    Lunar__VolumeGet get = LUNAR__VOLUME_GET__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT, *back = NULL;
    struct error err = ERROR_INIT;

    get.volume_id = uuid_to_pb(&id);
    get.volume_id.len = 7;
    request.id = uuid_to_pb(&id);
    request.op_case = LUNAR__REQUEST__OP_VOLUME_GET;
    request.volume_get = &get;
    e.body_case = LUNAR__ENVELOPE__BODY_REQUEST;
    e.request = &request;
    CHECK_EQ(repack(&e, &back, &err), LUNAR_E_INVALID);
    CHECK(strstr(err.text, "volume_id") != NULL);
}

static void a_text_beyond_its_bound_is_refused(void)
{
    char name[MESSAGE_NAME_MAX + 2];
    struct uuid id = uuid_random();
    Lunar__VolumeGet get = LUNAR__VOLUME_GET__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT, *back = NULL;
    struct error err = ERROR_INIT;

    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    get.name = name;
    request.id = uuid_to_pb(&id);
    request.op_case = LUNAR__REQUEST__OP_VOLUME_GET;
    request.volume_get = &get;
    e.body_case = LUNAR__ENVELOPE__BODY_REQUEST;
    e.request = &request;
    CHECK_EQ(repack(&e, &back, &err), LUNAR_E_INVALID);
}

static void random_bytes_never_crash_it(void)
{
    uint8_t bytes[300];
    unsigned seed = 1;
    int accepted = 0;
    for (int round = 0; round < 20000; round++) {
        uint32_t len = (uint32_t)(rand_r(&seed) % (int)sizeof bytes);
        for (uint32_t i = 0; i < len; i++)
            bytes[i] = (uint8_t)rand_r(&seed);
        Lunar__Envelope *back = NULL;
        struct error err = ERROR_INIT;
        if (envelope_unpack(bytes, len, &back, &err) == 0) {
            accepted++;
            envelope_free(back);
        }
    }
    CHECK(accepted < 20000);
}

TEST_MAIN(TEST(a_request_comes_back_as_it_was), TEST(a_request_without_id_or_operation_is_refused),
          TEST(a_frame_of_empty_entries_is_refused_before_it_takes_100_mib),
          TEST(an_id_of_another_length_is_refused_by_name),
          TEST(a_text_beyond_its_bound_is_refused), TEST(random_bytes_never_crash_it))
