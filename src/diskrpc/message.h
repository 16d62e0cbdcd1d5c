/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Payloads: protobuf envelopes packed, unpacked and checked field by field, and framed on local
 * sockets.
 *
 * What envelope_unpack lets through is safe to use without further looks: exactly one body and one
 * op are set, every id has 16 bytes, no string is longer than its bound, no list longer than its
 * own. Anything else is LUNAR_E_INVALID with the field's name. Sizes and names are checked for
 * meaning by whoever owns the meaning (catalogue.h).
 */
#ifndef LUNAR_DISKRPC_MESSAGE_H
#define LUNAR_DISKRPC_MESSAGE_H

#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"
#include "proto/lunar.pb-c.h"

#define MESSAGE_MAX      (256u * 1024)  /* on the LUN: a spill slot */
#define FRAME_MAX        (1024u * 1024) /* on a local socket, behind the u32 little-endian length */
#define MESSAGE_NAME_MAX 253u           /* a Kubernetes node name; volume names are shorter */
#define MESSAGE_TEXT_MAX 4096u          /* error texts, device paths */
#define MESSAGE_SEGMENTS_MAX                                                                       \
    4096u /* of one layer: 16-byte segments fit a spill many times over                            \
           */
#define MESSAGE_LAYERS_MAX 256u
#define MESSAGE_LIST_MAX   4096u /* nodes, volumes in one page of a listing */

/* The caller frees *ret with envelope_free. */
int envelope_unpack(const uint8_t *bytes, uint32_t len, Lunar__Envelope **ret, struct error *err);
void envelope_free(Lunar__Envelope *envelope);
/* *ret is malloc'ed. LUNAR_E_TOO_BIG beyond FRAME_MAX. */
int envelope_pack(const Lunar__Envelope *envelope, uint8_t **ret, uint32_t *ret_len,
                  struct error *err);

/*
 * What a glance at a packed envelope tells people, without allocation and without any check of the
 * rest: for the trace, never to act upon. Bytes that are no envelope tell nothing: all is zero.
 */
struct envelope_head {
    uint32_t body;      /* Lunar__Envelope__BodyCase; 0: unknown */
    uint32_t op;        /* the chosen field's number in that body; 0: none */
    int32_t error;      /* of a response or result */
    struct uuid id;     /* zero: none */
    struct uuid volume; /* that the operation names by UUID; zero: none */
};
void envelope_peek(const uint8_t *bytes, uint32_t len, struct envelope_head *ret);
/* "request volume_create", "result", "unknown"; returns `buffer`. */
#define ENVELOPE_KIND_SIZE 64
char *envelope_kind(uint32_t body, uint32_t op, char buffer[ENVELOPE_KIND_SIZE]);

/* A protobuf bytes field that borrows the uuid's storage. */
ProtobufCBinaryData uuid_to_pb(const struct uuid *id);
/* From a checked 16-byte field; zero if it is empty. */
struct uuid uuid_from_pb(ProtobufCBinaryData data);

#endif
