/* SPDX-License-Identifier: Apache-2.0 */
/* Running a helper program to its end with a deadline and a clean environment. Internal to
 * src/fencing. */
#ifndef LUNAR_FENCING_CHILD_H
#define LUNAR_FENCING_CHILD_H

#include <stddef.h>

#include "base/error.h"

/*
 * Runs `argv` (argv[0] is looked up in PATH, then /usr/sbin, /usr/bin, /sbin, /bin), nothing open
 * but its three standard descriptors. Its standard output and error go to `output`, cut at `size` -
 * 1 and NUL-terminated. Blocks up to `limit_ms`. 0: it ended with exit code 0. LUNAR_E_NOT_FOUND:
 * no such program. LUNAR_E_EXEC: it ended otherwise (the sentence has its last line).
 * LUNAR_E_INDETERMINATE: it did not end in time and was told to die; what it did is unknown.
 */
int child_run(const char *const argv[], int limit_ms, char *output, size_t size, struct error *err);

#endif
