/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C by ISA-L, which picks SSE4.2/PCLMUL or a table by itself; see crc32c.h. */
#include "base/crc32c.h"

#include <isa-l/crc.h>

uint32_t crc32c_more(uint32_t crc, const void *data, size_t len)
{
    const unsigned char *p = data;
    crc = ~crc;
    while (len > 0) {
        int n = len > (1u << 30) ? 1 << 30 : (int)len;
        /* ISA-L's argument lacks a const that its implementation honours. */
        crc = crc32_iscsi((unsigned char *)(uintptr_t)p, n, crc);
        p += n;
        len -= (size_t)n;
    }
    return ~crc;
}

uint32_t crc32c(const void *data, size_t len)
{
    return crc32c_more(0, data, len);
}
