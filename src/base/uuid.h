/* SPDX-License-Identifier: Apache-2.0 */
/* 128-bit identifiers of pools, volumes, attachments and requests: random (RFC 9562 version 4),
 * text as usual. */
#ifndef LUNAR_BASE_UUID_H
#define LUNAR_BASE_UUID_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define UUID_TEXT_SIZE 37 /* 36 characters and the NUL */

struct uuid {
    uint8_t b[16];
};

/* From the kernel's generator; aborts when that fails, because nothing safe can follow. */
struct uuid uuid_random(void);
/* Returns 0, or LUNAR_E_INVALID without touching *ret. Only the 36-character form, either case. */
int uuid_parse(const char *text, struct uuid *ret);
/* Returns `text`. */
char *uuid_format(const struct uuid *id, char text[UUID_TEXT_SIZE]);
/* The first 8 bytes as a number: the short id below names of LVs, dm devices and VDUSE devices. */
uint64_t uuid_short(const struct uuid *id);

static inline bool uuid_equal(const struct uuid *a, const struct uuid *b)
{
    return memcmp(a->b, b->b, sizeof a->b) == 0;
}

static inline bool uuid_is_zero(const struct uuid *a)
{
    static const struct uuid zero;
    return uuid_equal(a, &zero);
}

#endif
