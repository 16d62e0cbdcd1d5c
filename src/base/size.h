/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes as people write them: "10GiB", "10G", "512MiB", "4096"; powers of 1024 throughout. */
#ifndef LUNAR_BASE_SIZE_H
#define LUNAR_BASE_SIZE_H

#include <stdint.h>

#include "base/error.h"

#define SIZE_TEXT_SIZE 32

/* Bytes from text; LUNAR_E_INVALID (with a sentence) for signs, fractions, unknown units, overflow,
 * zero. */
int size_parse(const char *text, uint64_t *ret_bytes, struct error *err);
/* Shortest exact form in KiB..PiB when it divides, else two decimals; returns `text`. */
char *size_format(uint64_t bytes, char text[SIZE_TEXT_SIZE]);

#endif
