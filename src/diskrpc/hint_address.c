/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses of hints: text, and which ones a datagram may be sent to.
 *
 * Happy path: an option is parsed once at a daemon's start; a peer's address comes out of its page
 * and is checked before each datagram. Failure modes: a text that is no address is refused with a
 * sentence; an address out of a page that nobody should be sent anything at is simply not sendable.
 */
#include "diskrpc/hint_address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool hint_address_is_none(const struct hint_address *address)
{
    static const struct hint_address none;
    return address->port == 0 && memcmp(address->ip, none.ip, sizeof none.ip) == 0;
}

bool hint_address_is_ipv4(const struct hint_address *address)
{
    return memcmp(address->ip, mapped, sizeof mapped) == 0;
}

char *hint_address_format(const struct hint_address *address, char text[HINT_ADDRESS_TEXT_SIZE])
{
    char ip[INET6_ADDRSTRLEN];
    bool v4 = hint_address_is_ipv4(address);

    if (hint_address_is_none(address))
        return strcpy(text, "none");
    inet_ntop(v4 ? AF_INET : AF_INET6, address->ip + (v4 ? sizeof mapped : 0), ip, sizeof ip);
    snprintf(text, HINT_ADDRESS_TEXT_SIZE, v4 ? "%s:%u" : "[%s]:%u", ip, address->port);
    return text;
}

static bool ip_sendable(const struct hint_address *address)
{
    static const uint8_t unspecified[16];
    const uint8_t *ip = address->ip;

    if (hint_address_is_ipv4(address)) /* 0/8 is "this host", 224/4 multicast, 240/4 reserved */
        return ip[12] != 0 && ip[12] < 224;
    bool link_local = ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80;
    return memcmp(ip, unspecified, sizeof unspecified) != 0 && ip[0] != 0xff && !link_local;
}

bool hint_address_sendable(const struct hint_address *address)
{
    return address->port != 0 && ip_sendable(address);
}

/* Splits off ":PORT"; `text` loses it. False if there is one that is none. */
static bool take_port(char *text, uint16_t *ret)
{
    char *colon = strrchr(text, ':'), *bracket = strchr(text, ']'), *end;

    *ret = 0;
    if (!colon || (bracket && colon < bracket))
        return true;
    if (!bracket && strchr(text, ':') != colon)
        return true; /* an IPv6 address without brackets has no port */
    unsigned long port = strtoul(colon + 1, &end, 10);
    *colon = '\0';
    *ret = (uint16_t)port;
    return colon[1] >= '0' && colon[1] <= '9' && *end == '\0' && port >= 1 && port <= UINT16_MAX;
}

static bool take_ip(char *text, uint8_t ip[16])
{
    size_t len = strlen(text);

    if (text[0] == '[' && text[len - 1] == ']') {
        text[len - 1] = '\0';
        return inet_pton(AF_INET6, text + 1, ip) == 1;
    }
    memcpy(ip, mapped, sizeof mapped);
    return inet_pton(AF_INET, text, ip + sizeof mapped) == 1 || inet_pton(AF_INET6, text, ip) == 1;
}

int hint_option_parse(const char *text, struct hint_option *ret, struct error *err)
{
    char copy[HINT_ADDRESS_TEXT_SIZE];
    struct hint_option option = {.on = strcmp(text, "off") != 0};

    if (option.on && strcmp(text, "auto") != 0) {
        bool good = strlen(text) < sizeof copy && text[0] != '\0';
        snprintf(copy, sizeof copy, "%s", text);
        good = good && take_port(copy, &option.bind.port);
        bool chosen = good && copy[0] != '\0';
        good = good && (!chosen || take_ip(copy, option.bind.ip));
        if (!good)
            return error_set(err, LUNAR_E_INVALID,
                             "'%s' is not off, auto, ADDRESS, ADDRESS:PORT, [IPV6]:PORT or :PORT",
                             text);
        if (chosen && !ip_sendable(&option.bind))
            return error_set(err, LUNAR_E_INVALID,
                             "nobody could send to '%s': give one of this node's own addresses",
                             text);
    }
    *ret = option;
    return 0;
}
