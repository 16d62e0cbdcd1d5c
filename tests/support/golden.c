/* SPDX-License-Identifier: Apache-2.0 */
/* Golden files; see golden.h. The tests run from the top of the source tree. */
#include "support/golden.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static FILE *open_golden(const char *name, const char *mode)
{
    char path[256];

    snprintf(path, sizeof path, "tests/golden/%s.hex", name);
    FILE *file = fopen(path, mode);
    if (!file)
        printf("# cannot open %s\n", path);
    return file;
}

static void write_golden(FILE *file, const uint8_t *bytes, uint32_t len)
{
    static const uint8_t zero[16];

    for (uint32_t at = 0; at < len; at += 16) {
        if (memcmp(bytes + at, zero, 16) == 0)
            continue;
        fprintf(file, "%06" PRIx32, at);
        for (uint32_t i = 0; i < 16; i++)
            fprintf(file, " %02x", bytes[at + i]);
        fputc('\n', file);
    }
    fprintf(file, "%06" PRIx32 "\n", len);
}

static bool parse_line(const char *line, uint8_t *bytes, uint32_t len, uint32_t *ret_end)
{
    char *p;
    unsigned long at = strtoul(line, &p, 16);

    if (*p == '\n') {
        *ret_end = (uint32_t)at;
        return true;
    }
    for (unsigned long i = 0; i < 16; i++) {
        if (at + i >= len)
            return false;
        bytes[at + i] = (uint8_t)strtoul(p, &p, 16);
    }
    return true;
}

bool golden_load(const char *name, uint8_t *bytes, uint32_t len)
{
    char line[128];
    uint32_t end = 0;
    bool ok = true;
    FILE *file = open_golden(name, "r");

    if (!file)
        return false;
    memset(bytes, 0, len);
    while (ok && fgets(line, sizeof line, file))
        ok = parse_line(line, bytes, len, &end);
    fclose(file);
    return ok && end == len;
}

bool golden_matches(const char *name, const uint8_t *bytes, uint32_t len)
{
    if (getenv("LUNAR_GOLDEN_UPDATE")) {
        FILE *file = open_golden(name, "w");
        if (file) {
            write_golden(file, bytes, len);
            fclose(file);
        }
    }
    uint8_t *want = malloc(len);
    if (!want)
        abort();
    bool ok = golden_load(name, want, len);
    for (uint32_t i = 0; ok && i < len; i++)
        if (want[i] != bytes[i]) {
            printf("# golden %s: byte %" PRIu32 " is %02x, not %02x\n", name, i, bytes[i], want[i]);
            ok = false;
        }
    free(want);
    return ok;
}
