/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes with units; see size.h. */
#include "base/size.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char units[] = "KMGTP";

static int unit_shift(const char *unit)
{
    if (unit[0] == '\0' || strcasecmp(unit, "B") == 0)
        return 0;
    const char *at = strchr(units, toupper((unsigned char)unit[0]));
    if (!at)
        return -1;
    if (unit[1] != '\0' && strcasecmp(unit + 1, "iB") != 0 && strcasecmp(unit + 1, "i") != 0)
        return -1;
    return 10 * (int)(at - units + 1);
}

int size_parse(const char *text, uint64_t *ret_bytes, struct error *err)
{
    char *end;

    if (!isdigit((unsigned char)text[0]))
        return error_set(err, LUNAR_E_INVALID,
                         "bad size '%s': write a number with a unit, as 10GiB", text);
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    int shift = unit_shift(end);
    if (shift < 0)
        return error_set(err, LUNAR_E_INVALID,
                         "bad size '%s': units are KiB, MiB, GiB, TiB, PiB (whole numbers)", text);
    if (errno == ERANGE || n == 0 || n > (uint64_t)INT64_MAX >> shift)
        return error_set(err, LUNAR_E_INVALID, "bad size '%s': out of range", text);
    *ret_bytes = (uint64_t)n << shift;
    return 0;
}

char *size_format(uint64_t bytes, char text[SIZE_TEXT_SIZE])
{
    int unit = 0;
    while (unit < 5 && bytes >= 1ull << (10 * (unit + 1)))
        unit++;
    uint64_t one = 1ull << (10 * unit);
    if (unit == 0)
        snprintf(text, SIZE_TEXT_SIZE, "%llu B", (unsigned long long)bytes);
    else if (bytes % one == 0)
        snprintf(text, SIZE_TEXT_SIZE, "%llu %ciB", (unsigned long long)(bytes / one),
                 units[unit - 1]);
    else
        snprintf(text, SIZE_TEXT_SIZE, "%.2f %ciB", (double)bytes / (double)one, units[unit - 1]);
    return text;
}
