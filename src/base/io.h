/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocking O_DIRECT I/O for whoever may block: command-line tools and worker threads, never the
 * loop thread. Every buffer is page-aligned, every offset and length a multiple of the sector size
 * (4096 always satisfies it).
 */
#ifndef LUNAR_BASE_IO_H
#define LUNAR_BASE_IO_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define IO_ALIGN 4096u

/* Zeroed, IO_ALIGN-aligned; free() it. Aborts when memory is gone. */
void *io_alloc(size_t len);
/* Opens O_DIRECT|O_CLOEXEC, read-only or read-write; returns the descriptor or -errno. */
int io_open(const char *path, int read_write, struct error *err);
/* All of it or an error; a short read is -EIO, a short write is -ENOSPC. Each retries EINTR. */
int io_read(int fd, void *buffer, size_t len, uint64_t offset, struct error *err);
int io_write(int fd, const void *buffer, size_t len, uint64_t offset, struct error *err);
/* Size in bytes of a block device or a regular file, and its logical sector size (files: 512). */
int io_geometry(int fd, uint64_t *ret_bytes, uint32_t *ret_sector, struct error *err);

#endif
