/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Protobuf messages out of fuzz bytes: walks a message's own descriptor and writes fields in the
 * order, number and with the values that the input asks for. Raw bytes hardly ever make a message
 * that is accepted; these nearly always do, yet fields may be missing, repeated, out of bounds or
 * of a type that nobody expects there. A field added to the .proto is fuzzed from its first day.
 */
#ifndef LUNAR_TESTS_FUZZ_PB_WRITER_H
#define LUNAR_TESTS_FUZZ_PB_WRITER_H

#include <protobuf-c/protobuf-c.h>

#include "fuzz/fuzz.h"

struct pb_writer {
    uint8_t *bytes;
    uint32_t len, room; /* what does not fit is left out */
    struct feed *feed;
    /* Fields named *id: which id the input's byte means; the caller knows the ids of its world. */
    struct uuid (*id)(const char *field, uint8_t which);
};

/* Writes field `number` of `outer` as a message filled from the feed: an envelope's body, say. */
void pb_write_body(struct pb_writer *w, const ProtobufCMessageDescriptor *outer, const char *name);

#endif
