/* SPDX-License-Identifier: Apache-2.0 */
/* A look at a QCOW2 image without QEMU: only what tells that it is lunar's and empty. */
#ifndef LUNAR_AGENT_QCOW2_H
#define LUNAR_AGENT_QCOW2_H

#include <stdint.h>

#include "base/error.h"

/* Is the image on this device (or in this file) as a format job makes it, and was nothing written
 * to it? Then *ret_size is its virtual size. LUNAR_E_CORRUPT with the reason if not. Blocks. */
int qcow2_check_empty(const char *path, uint64_t *ret_size, struct error *err);

#endif
