/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lunarctl node check`: findings, and the parts that make them. Everything about the machine is
 * read below `root`, and programs are asked through `run`, so that tests bring a machine of their
 * own. One thread, blocking.
 */
#ifndef LUNARCTL_CHECK_H
#define LUNARCTL_CHECK_H

#include <stdbool.h>
#include <stddef.h>

#include "fencing/timeouts.h"

enum check_level { CHECK_LEVEL_OK, CHECK_LEVEL_WARN, CHECK_LEVEL_FAIL };
const char *check_level_name(enum check_level level);

struct check_finding {
    enum check_level level;
    char subject[64]; /* what was looked at: "iSCSI session3 (sda)" */
    char value[96];   /* what it is: "noop 5 + 5 s, replacement 120 s = 130 s" */
    char bound[64];   /* what it should be: "at most 12 s" */
    char advice[384]; /* the setting to change; "" where all is well */
};

#define CHECK_FINDINGS_MAX 128u

struct check {
    const char *root; /* "" on a real machine */
    /* What a program printed, NUL-terminated, into `output`; false if it is not there or failed. */
    bool (*run)(const char *const *argv, char *output, size_t output_size);
    struct timeouts timeouts;
    unsigned n_findings;
    struct check_finding findings[CHECK_FINDINGS_MAX];
};

/* Adds a finding (the last ones are dropped when there are too many); never NULL. */
struct check_finding *check_add(struct check *check, enum check_level level, const char *subject,
                                ...) __attribute__((format(printf, 3, 4)));
enum check_level check_worst(const struct check *check);

/* Text below root, without its newline; false if it is not there. */
bool check_read(const struct check *check, char *ret, size_t ret_size, const char *path, ...)
    __attribute__((format(printf, 4, 5)));
/* A whole number there: 1; 0 if it is a word ("off", copied to `word`, which may be NULL); -1 if
 * it is not there. */
int check_number(const struct check *check, long *ret, char word[16], const char *path, ...)
    __attribute__((format(printf, 4, 5)));

/* The kernel modules that volumes need. */
void check_modules(struct check *check);
/* A watchdog device that can do W. */
void check_watchdog_device(struct check *check);
/* How soon the paths below block device `name` ("sda", "dm-3") give up an I/O, against 8N. */
void check_transport(struct check *check, const char *name);
/* The same for what is below a multipath map; returns the slowest path's seconds, or -1: never. */
long check_paths_of(struct check *check, const char *name);
void check_multipath(struct check *check, const char *name, long paths_s);

#endif
