/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SCSI-3 persistent reservations of a pool's PVs (SAFETY 13): the LUN itself refuses the writes of
 * a node that was preempted, also those that were under way when it froze.
 *
 * Each member registers a key on every path of every PV and the PVs are reserved "write exclusive,
 * all registrants" (SCSI type 7): every registrant writes, nobody else does, everybody reads, and
 * the reservation ends with the last registrant and not with the one that made it. A key says whose
 * it is: (pool, host id, generation), so that a takeover finds a victim's keys in READ KEYS alone.
 *
 * Order, which guards data:
 *   join    reservation_register(candidate host id, on-disk generation + 1) *before* the lockspace
 *           is added; after the join reservation_change to what it became, if that differs;
 *   joined  never a register; reservation_check tells whether the key is still there;
 *   leave   reservation_unregister last, when the lockspace is left;
 *   death   reservation_preempt before the victim's first grant moves, and before a new
 *           coordinator's first LVM commit when its predecessor's host is dead.
 * A preempted node gets reservation conflicts (reservation_is_conflict), fences itself and comes
 * back as another generation only.
 *
 * Used in pools with SUPERBLOCK_FLAG_PR alone, and there by every member: a member without a key
 * could not write, and one that can write without a key could not be stopped.
 *
 * A dm-multipath device is taken apart: each of its paths is an I_T nexus of its own to the array
 * and is registered by itself. The kernel's IOC_PR_* calls would spare that, but they read no keys
 * in the kernels in use, and without READ KEYS nothing here can be checked. NVMe's reservations are
 * other commands and are not spoken.
 *
 * All calls block, for seconds where the array or a path is slow: worker threads only, one at a
 * time for each `struct reservation`.
 */
#ifndef LUNAR_FENCING_RESERVATION_H
#define LUNAR_FENCING_RESERVATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"

/* --- keys: pure --- */

/* 28 bits of generation: one join a second for eight years. 12 bits of host id: sanlock's 2000. */
#define RESERVATION_GENERATION_MAX ((1u << 28) - 1)
#define RESERVATION_HOST_ID_MAX    ((1u << 12) - 1)

/* LUNAR_E_TOO_BIG if the numbers do not fit; never 0, which SCSI takes for "no key". */
int reservation_key_out(const struct uuid *pool_id, uint32_t host_id, uint64_t generation,
                        uint64_t *ret, struct error *err);
/* False: another pool's key, or not lunar's. */
bool reservation_key_in(const struct uuid *pool_id, uint64_t key, uint32_t *ret_host_id,
                        uint64_t *ret_generation);

/* 2000 nodes by four paths; READ KEYS itself cannot say more than 8191 keys at once. */
#define RESERVATION_KEYS_MAX 8190u

/* The answer to READ KEYS: one entry for each registered nexus, so a key may stand there often. */
struct reservation_keys {
    uint32_t n;
    uint64_t keys[RESERVATION_KEYS_MAX];
};
/* LUNAR_E_CORRUPT: not an answer; LUNAR_E_TOO_BIG: the device has more keys than it could say. */
int reservation_keys_in(const uint8_t *answer, size_t len, struct reservation_keys *ret,
                        struct error *err);
bool reservation_keys_have(const struct reservation_keys *keys, uint64_t key);
/* The keys of that host id with a generation of at most `generation`, each once; their number. */
uint32_t reservation_victims(const struct reservation_keys *keys, const struct uuid *pool_id,
                             uint32_t host_id, uint64_t generation,
                             uint64_t ret[RESERVATION_KEYS_MAX]);

/* The answer to READ RESERVATION. */
struct reservation_holder {
    bool held;
    uint8_t type;
    uint64_t key; /* 0 with type 7 */
};
int reservation_holder_in(const uint8_t *answer, size_t len, struct reservation_holder *ret,
                          struct error *err);

/* The answer to REPORT CAPABILITIES. LUNAR_E_UNSUPPORTED unless type 7 can be had. */
struct reservation_capabilities {
    bool persists; /* registrations outlive a power loss of the array, if asked to (APTPL) */
};
int reservation_capabilities_in(const uint8_t *answer, size_t len,
                                struct reservation_capabilities *ret, struct error *err);

/* --- devices --- */

/* Whose keys are gone may have been preempted by a coordinator that was killed before the array had
 * aborted all of the victim's commands, and nothing tells whether it has. SCSI gives no bound; an
 * array answers or aborts a write that it holds in well under this, or it is failing anyway. */
#define RESERVATION_SETTLE_MS 5000

struct reservation;

/* Opens the pool's PVs, each with its paths, and asks what they can do. LUNAR_E_UNSUPPORTED, with
 * the reason: a device without reservations of type 7. */
int reservation_open(const char *const *devices, uint32_t n_devices, const struct uuid *pool_id,
                     struct reservation **ret, struct error *err);
void reservation_close(struct reservation *r);

/* Format: nothing may be reserved by somebody else (LUNAR_E_FOREIGN, unless `force`); whatever
 * lunar pools left here is cleared. Nobody may be alive in the pool that was. */
int reservation_clear(struct reservation *r, bool force, struct error *err);

/* Registers on every path that works, at least one of each PV, and reserves the PVs. Whatever key
 * this node had is replaced. LUNAR_E_FOREIGN: somebody else's reservation or keys are there. */
int reservation_register(struct reservation *r, uint32_t host_id, uint64_t generation,
                         struct error *err);
/* From the key of reservation_register to this one, if they differ. LUNAR_E_FENCED: the former key
 * is not there any more. */
int reservation_change(struct reservation *r, uint32_t host_id, uint64_t generation,
                       struct error *err);
/* For another process of the node, and after a restart: the key that was registered, no command. */
int reservation_adopt(struct reservation *r, uint32_t host_id, uint64_t generation,
                      struct error *err);
/* 0: our key is on every PV and type 7 is reserved. LUNAR_E_FENCED: it is not, this node was
 * preempted. Other codes: not known. */
int reservation_check(struct reservation *r, struct error *err);
/* Paths that went since are let go; those that came are registered, but only where READ KEYS still
 * shows our key. LUNAR_E_FENCED as above. */
int reservation_tend_paths(struct reservation *r, struct error *err);
/* After the last write. A key that is gone already is no error. */
int reservation_unregister(struct reservation *r, struct error *err);

/*
 * On every PV: the host id's keys up to that generation are preempted, the commands that the victim
 * has under way at the LUN are aborted, and the keys are read back. 0 is proof: nothing of the
 * victim's is written any more, whatever it does. On any failure nothing is proved; call it again.
 * LUNAR_E_FENCED: we were preempted ourselves. Where the keys were gone before we came, 0 comes
 * after RESERVATION_SETTLE_MS. Not for a host that left cleanly: it has no key and may be believed.
 */
int reservation_preempt(struct reservation *r, uint32_t host_id, uint64_t generation,
                        struct error *err);

/* Whether any PV has a key that reservation_preempt would take. */
int reservation_find(struct reservation *r, uint32_t host_id, uint64_t generation, bool *ret,
                     struct error *err);

/* Whether an I/O's result (-errno) says that the LUN refused it because of a reservation: this
 * node's key is gone, and it must fence itself at once. */
bool reservation_is_conflict(int rc);

#endif
