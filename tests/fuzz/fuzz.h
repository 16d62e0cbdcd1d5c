/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzz targets share: the entry point's shape, a reader of the input that never runs dry,
 * and MUST, the check that ends the process (which is what a fuzzer understands).
 *
 * A target is one file fuzz_NAME.c with LLVMFuzzerTestOneInput. It is linked twice: with libFuzzer
 * in the preset `fuzz` (tools/fuzz runs it), and with replay.c in every other build, where
 * test_fuzz_NAME runs it over tests/fuzz/corpus/NAME. Targets are deterministic: uuid_random counts
 * (fuzz_support.c), nothing reads a clock.
 */
#ifndef LUNAR_TESTS_FUZZ_FUZZ_H
#define LUNAR_TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/uuid.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define MUST(condition, sentence)                                                                  \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, sentence, #condition);         \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* The input as a stream; zeroes behind its end, so that every prefix of a script is a script. */
struct feed {
    const uint8_t *at;
    size_t left;
};

static inline uint8_t feed_u8(struct feed *f)
{
    if (f->left == 0)
        return 0;
    f->left--;
    return *f->at++;
}

static inline uint16_t feed_u16(struct feed *f)
{
    uint16_t low = feed_u8(f);
    return (uint16_t)(low | (unsigned)feed_u8(f) << 8);
}

static inline uint64_t feed_u64(struct feed *f)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 64; i += 8)
        value |= (uint64_t)feed_u8(f) << i;
    return value;
}

/* At most `wanted` bytes: *ret points into the input. */
static inline size_t feed_bytes(struct feed *f, size_t wanted, const uint8_t **ret)
{
    size_t n = wanted < f->left ? wanted : f->left;
    *ret = f->at;
    f->at += n;
    f->left -= n;
    return n;
}

/* Reads every byte, so that a pointer or a length that is wrong shows under ASan. */
static inline uint32_t touch(const void *bytes, size_t len)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < len; i++)
        sum += ((const uint8_t *)bytes)[i];
    return sum;
}

/* 01 02 ... 10: the pool of the golden files and of all targets. */
extern const struct uuid fuzz_pool;
/* uuid_random counts from 1 again. */
void fuzz_uuid_reset(void);
/* The n-th value that it gave. */
struct uuid fuzz_uuid(uint32_t n);

/*
 * Copies the input into `len` zeroed bytes, in one of three shapes told by its first byte: as it
 * is; sealed with a right CRC; or with the whole common header (unit.h) right for kind, header
 * length, slot and pool, then sealed. Random bytes die at the CRC: this is how they get past it.
 */
void fuzz_unit(const uint8_t *data, size_t size, int kind, uint32_t header_len, uint32_t slot,
               uint8_t *buffer, uint32_t len);

#endif
