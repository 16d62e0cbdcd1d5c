/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands that go on until they are told to stop: Ctrl-C, SIGTERM or a closed terminal ends them
 * between two looks, with exit code 0. One per process.
 */
#ifndef LUNARCTL_WATCH_H
#define LUNARCTL_WATCH_H

#include <stdbool.h>
#include <stdint.h>

/* From here on the first signal asks to stop; a second one kills, should a look hang. */
void watch_start(void);
/* Waits; false as soon as it is told to stop. */
bool watch_sleep(uint64_t ms);

#endif
