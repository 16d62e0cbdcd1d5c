/* SPDX-License-Identifier: Apache-2.0 */
/* A sparse file that stands for a LUN, opened O_DIRECT. */
#ifndef LUNAR_TESTS_SUPPORT_TEMP_LUN_H
#define LUNAR_TESTS_SUPPORT_TEMP_LUN_H

#include <stdint.h>

#define TEMP_LUN_PATH_SIZE 64

/* Makes a file of `bytes` zeroes and opens it; -1 where the file system refuses O_DIRECT. `path` is
 * filled. */
int temp_lun_open(uint64_t bytes, char path[TEMP_LUN_PATH_SIZE]);
/* Closes and deletes; fd may be -1. */
void temp_lun_close(int fd, const char *path);

#endif
