/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a side of the disk RPC wants hints (hint.h) to go: what a page carries, what the daemons'
 * option --hint says. Pure: no sockets here.
 */
#ifndef LUNAR_DISKRPC_HINT_ADDRESS_H
#define LUNAR_DISKRPC_HINT_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* All zero: no hints are wanted. IPv4 is written as ::ffff:a.b.c.d. */
struct hint_address {
    uint8_t ip[16]; /* network order */
    uint16_t port;
};

#define HINT_ADDRESS_TEXT_SIZE 64

bool hint_address_is_none(const struct hint_address *address);
bool hint_address_is_ipv4(const struct hint_address *address);
/* "192.0.2.7:4000", "[2001:db8::7]:4000", "none". Returns `text`. */
char *hint_address_format(const struct hint_address *address, char text[HINT_ADDRESS_TEXT_SIZE]);
/*
 * May a datagram go there? A page says what its writer likes: never to a multicast, broadcast,
 * reserved or unspecified address, nor to an IPv6 link-local one, which means nothing without an
 * interface. A network's own broadcast address cannot be told from here; the kernel refuses it to a
 * socket without SO_BROADCAST.
 */
bool hint_address_sendable(const struct hint_address *address);

/* The option --hint; all zero is "off". */
struct hint_option {
    bool on;                  /* false: no socket, nothing sent, nothing published */
    struct hint_address bind; /* ip zero: choose one; port 0: any free one */
};
/*
 * "off", "auto", "ADDRESS", "ADDRESS:PORT", "[IPV6]:PORT", and ":PORT" for a chosen address.
 * LUNAR_E_INVALID for anything else, and for an address at which nobody could send to us.
 */
int hint_option_parse(const char *text, struct hint_option *ret, struct error *err);

#endif
