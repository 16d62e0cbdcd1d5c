/* SPDX-License-Identifier: Apache-2.0 */
/* Blocking O_DIRECT I/O; see io.h. */
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * A buffer of many small pages is a list too long for one request to the device: 1 MiB was seen to
 * go in two. So from here on the kernel is asked for huge pages; it may refuse.
 */
#define IO_HUGE_FROM (1u << 20)
#define IO_HUGE_PAGE (2u << 20)

void *io_alloc(size_t len)
{
    size_t align = len < IO_HUGE_FROM ? IO_ALIGN : IO_HUGE_PAGE;
    size_t whole = (len + align - 1) / align * align;
    void *p = NULL;

    if (posix_memalign(&p, align, whole) != 0)
        abort();
    if (align == IO_HUGE_PAGE)
        madvise(p, whole, MADV_HUGEPAGE);
    return memset(p, 0, (len + IO_ALIGN - 1) / IO_ALIGN * IO_ALIGN);
}

int io_open(const char *path, int read_write, struct error *err)
{
    int fd = open(path, (read_write ? O_RDWR : O_RDONLY) | O_DIRECT | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, -errno, "cannot open %s: %s", path, strerror(errno));
    return fd;
}

int io_read(int fd, void *buffer, size_t len, uint64_t offset, struct error *err)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = pread(fd, (char *)buffer + done, len - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(err, -errno, "cannot read %zu bytes at %llu: %s", len,
                             (unsigned long long)offset, strerror(errno));
        if (n == 0)
            return error_set(err, -EIO, "the device ends before byte %llu",
                             (unsigned long long)(offset + len));
        done += (size_t)n;
    }
    return 0;
}

int io_write(int fd, const void *buffer, size_t len, uint64_t offset, struct error *err)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = pwrite(fd, (const char *)buffer + done, len - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(err, -errno, "cannot write %zu bytes at %llu: %s", len,
                             (unsigned long long)offset, strerror(errno));
        if (n == 0)
            return error_set(err, -ENOSPC, "the device ends before byte %llu",
                             (unsigned long long)(offset + len));
        done += (size_t)n;
    }
    return 0;
}

int io_geometry(int fd, uint64_t *ret_bytes, uint32_t *ret_sector, struct error *err)
{
    struct stat st;
    int sector = 512;

    if (fstat(fd, &st) < 0)
        return error_set(err, -errno, "cannot stat: %s", strerror(errno));
    *ret_bytes = (uint64_t)st.st_size;
    if (S_ISBLK(st.st_mode) &&
        (ioctl(fd, BLKGETSIZE64, ret_bytes) < 0 || ioctl(fd, BLKSSZGET, &sector) < 0))
        return error_set(err, -errno, "cannot get the device's size: %s", strerror(errno));
    *ret_sector = (uint32_t)sector;
    return 0;
}
