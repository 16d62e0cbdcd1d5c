/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors: one table of lunar's own codes, and the text that travels with a code.
 *
 * A function returns 0 (or a count) or a negative code. Codes of the operating system stay -errno;
 * lunar's own lie below LUNAR_E_BASE, so the two never meet. `struct error` carries the sentence a
 * human reads; each layer may prefix it with what it was doing. Passing a NULL `struct error *` is
 * always allowed.
 *
 * Three outcomes of an I/O, exec or API call are kept apart: done (>= 0), refused (any code but the
 * next), and LUNAR_E_INDETERMINATE: it may still take effect. The third is never folded into the
 * second.
 */
#ifndef LUNAR_BASE_ERROR_H
#define LUNAR_BASE_ERROR_H

#include <stdbool.h>

#define LUNAR_E_BASE (-20000)

/* X(name, offset, text, gRPC status, retryable) -- the gRPC numbers are those of the gRPC status
 * code list. */
#define LUNAR_ERRORS(X)                                                                            \
    X(INDETERMINATE, 0, "outcome unknown: it may still take effect", 14, true)                     \
    X(CORRUPT, 1, "bytes are damaged or not lunar's", 15, false)                                   \
    X(VERSION, 2, "written by an incompatible version of lunar", 9, false)                         \
    X(FOREIGN, 3, "belongs to another pool or to somebody else", 9, false)                         \
    X(STALE, 4, "of an older term, generation or run", 10, true)                                   \
    X(TOO_BIG, 5, "larger than the format allows", 3, false)                                       \
    X(INVALID, 6, "invalid argument", 3, false)                                                    \
    X(NOT_FOUND, 7, "not found", 5, false)                                                         \
    X(EXISTS, 8, "exists already with other parameters", 6, false)                                 \
    X(IN_USE, 9, "in use", 9, false)                                                               \
    X(NO_SPACE, 10, "the pool is full", 8, false)                                                  \
    X(NOT_LEADER, 11, "this is not the coordinator", 14, true)                                     \
    X(NOT_JOINED, 12, "this node has not joined the pool", 14, true)                               \
    X(BUSY, 13, "another operation on it is going on", 10, true)                                   \
    X(TIMEOUT, 14, "no answer in time", 4, true)                                                   \
    X(NO_WATCHDOG, 15, "no armed watchdog", 9, false)                                              \
    X(EXEC, 16, "a helper program failed", 13, true)                                               \
    X(QMP, 17, "qemu-storage-daemon refused", 13, true)                                            \
    X(METADATA, 18, "the LVM metadata on the LUN is not what was committed last", 15, false)       \
    X(UNSUPPORTED, 19, "not supported", 12, false)                                                 \
    X(FULL, 20, "no free slot", 8, true)                                                           \
    X(PERMISSION, 21, "not permitted", 7, false)                                                   \
    X(ALIVE, 22, "somebody uses it: its lockspace is alive", 9, false)                             \
    X(FENCED, 23, "this node is being fenced off from the pool", 14, true)

enum lunar_error_code {
#define X(name, offset, text, grpc, retryable) LUNAR_E_##name = LUNAR_E_BASE - (offset),
    LUNAR_ERRORS(X)
#undef X
};

/* 1023 bytes hold the longest prefixed sentence met; longer ones are cut, never overrun. */
struct error {
    int code;
    char text[1024];
};

#define ERROR_INIT                                                                                 \
    {                                                                                              \
        0, ""                                                                                      \
    }

/* Sets code and text; returns `code`, so that `return error_set(...)` reads well. */
int error_set(struct error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "format: " before the text that is there; returns the code that is there. */
int error_prefix(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "INDETERMINATE", "EIO", ...; static storage. */
const char *error_name(int code);
/* The sentence of the code; static storage. */
const char *error_text(int code);
/* The gRPC status number of the code; OS errors map to INTERNAL (13), UNAVAILABLE (14) where a
 * retry helps. */
int error_grpc(int code);
bool error_retryable(int code);

#endif
