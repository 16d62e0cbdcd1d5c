/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Golden files: the exact bytes of a structure, as text that a reviewer can read. A line is an
 * offset and 16 bytes in hex; lines of zeroes are left out; the last line is the size. They pin the
 * disk format: a change of one is a change of the format, and needs a new version.
 * LUNAR_GOLDEN_UPDATE=1 in the environment writes them anew.
 */
#ifndef LUNAR_TESTS_SUPPORT_GOLDEN_H
#define LUNAR_TESTS_SUPPORT_GOLDEN_H

#include <stdbool.h>
#include <stdint.h>

/* Compares with tests/golden/NAME.hex; prints the first line that differs. */
bool golden_matches(const char *name, const uint8_t *bytes, uint32_t len);
/* Loads exactly `len` bytes. */
bool golden_load(const char *name, uint8_t *bytes, uint32_t len);

#endif
