/* SPDX-License-Identifier: Apache-2.0 */
/* A sparse file that stands for a LUN; see temp_lun.h. */
#include "support/temp_lun.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/io.h"

int temp_lun_open(uint64_t bytes, char path[TEMP_LUN_PATH_SIZE])
{
    snprintf(path, TEMP_LUN_PATH_SIZE, "%s/lunar-test-XXXXXX", P_tmpdir);
    int fd = mkstemp(path);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
        abort();
    close(fd);
    struct error err = ERROR_INIT;
    fd = io_open(path, 1, &err);
    if (fd < 0) {
        printf("# %s\n", err.text);
        unlink(path);
    }
    return fd < 0 ? -1 : fd;
}

void temp_lun_close(int fd, const char *path)
{
    if (fd < 0)
        return;
    close(fd);
    unlink(path);
}
