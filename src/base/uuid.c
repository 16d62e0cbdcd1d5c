/* SPDX-License-Identifier: Apache-2.0 */
/* UUIDs; see uuid.h. */
#include "base/uuid.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/error.h"

struct uuid uuid_random(void)
{
    struct uuid id;
    if (getrandom(id.b, sizeof id.b, 0) != (ssize_t)sizeof id.b)
        abort();
    id.b[6] = (uint8_t)((id.b[6] & 0x0f) | 0x40);
    id.b[8] = (uint8_t)((id.b[8] & 0x3f) | 0x80);
    return id;
}

static int nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int uuid_parse(const char *text, struct uuid *ret)
{
    struct uuid id;
    size_t at = 0;

    if (strlen(text) != UUID_TEXT_SIZE - 1)
        return LUNAR_E_INVALID;
    for (size_t i = 0; i < sizeof id.b; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            if (text[at++] != '-')
                return LUNAR_E_INVALID;
        int high = nibble(text[at]), low = nibble(text[at + 1]);
        if (high < 0 || low < 0)
            return LUNAR_E_INVALID;
        id.b[i] = (uint8_t)(high << 4 | low);
        at += 2;
    }
    *ret = id;
    return 0;
}

char *uuid_format(const struct uuid *id, char text[UUID_TEXT_SIZE])
{
    char *p = text;
    for (size_t i = 0; i < sizeof id->b; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *p++ = '-';
        p += sprintf(p, "%02x", id->b[i]);
    }
    return text;
}

uint64_t uuid_short(const struct uuid *id)
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v = v << 8 | id->b[i];
    return v;
}
