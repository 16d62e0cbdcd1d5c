/* SPDX-License-Identifier: Apache-2.0 */
/* Disk images in files: what qemu-img says of them, and its conversions, with progress. */
#ifndef LUNARCTL_CONVERT_H
#define LUNARCTL_CONVERT_H

#include <signal.h>

#include "cli.h"

/* The formats that are read and written, "" included at the end of the list for messages. */
bool convert_format_known(const char *format);
#define CONVERT_FORMATS "raw, qcow2, vmdk, vhdx, vpc or vdi"

/*
 * Looks at the image `path` (absolute), which is `format` and nothing else. LUNAR_E_INVALID: it is
 * not, or it needs another file (a backing file, a data file, an extent), is encrypted or damaged;
 * `raw_anyway`: bytes that look like an image are a disk's. *ret_size: of the disk, in bytes.
 */
int convert_inspect(const char *path, const char *format, bool raw_anyway, uint64_t *ret_size,
                    struct error *err);
/* The same from what qemu-img info said. */
int convert_check(const char *json, const char *path, const char *format, uint64_t *ret_size,
                  struct error *err);

/* "(12.34/100%)" in a stream that comes in pieces. */
struct convert_parser {
    char number[8];
    unsigned n; /* digits so far, counted from 1; 0: not within a number */
};
/* The last progress in these bytes, in hundredths of a percent, or `before`. */
unsigned convert_parse(struct convert_parser *p, const char *bytes, size_t n, unsigned before);

/*
 * SIGINT, SIGTERM and SIGHUP are held back from here on, so that what was begun can be undone;
 * convert_stopped() says whether one has come.
 */
void convert_hold_signals(void);
bool convert_stopped(void);

/* Runs qemu-img with argv (NULL-terminated) and shows how far it is. It dies with us.
 * LUNAR_E_EXEC: it failed, with its last words; -EINTR: a signal has come, and it was killed. */
int convert_run(const struct cli *cli, const char *const *argv, struct error *err);
/* What was written to the file or device, or to a folder's entries, is on the disk. */
int convert_sync(const char *path, struct error *err);

#endif
