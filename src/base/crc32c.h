/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C (Castagnoli, reflected, init and xor-out all ones), computed by ISA-L with the best
 * instruction. */
#ifndef LUNAR_BASE_CRC32C_H
#define LUNAR_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(const void *data, size_t len);
/* Continues: crc32c_more(crc32c(a), b) equals crc32c(a followed by b). Start with crc = 0. */
uint32_t crc32c_more(uint32_t crc, const void *data, size_t len);

#endif
