/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Resetting this machine: lunar-guard's last resort (GUARD_DO_RESET). Linked into the program
 * alone, not into the library, so that no test can contain it; the program hands it on only if the
 * pool is no test pool. Internal to src/fencing.
 */
#ifndef LUNAR_FENCING_GUARD_RESET_H
#define LUNAR_FENCING_GUARD_RESET_H

/* At the start, while files can still be opened: finds out by what this machine can be reset, and
 * logs it. */
void guard_reset_prepare(void);
/* Resets it, at once and without a sync. Returns only if nothing worked. */
void guard_reset_now(const char *why);

#endif
