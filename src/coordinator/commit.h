/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One LVM commit, done safely: the only way the coordinator changes metadata. Blocking; the LVM
 * worker thread alone.
 *
 * Order: effect point -> leadership_check(term) (the leader record on the LUN still says us) ->
 * on-disk (seqno, CRC) equals what we know -> lvm command -> read the new (seqno, text) -> store
 * the copy in the reserved area -> effect point. Failure modes: deposed: LUNAR_E_STALE, nothing was
 * done; metadata is not ours: LUNAR_E_METADATA, restored from the copy and said so; lvm failed: its
 * words, the state is read again; time-out: LUNAR_E_INDETERMINATE, the caller re-reads the report
 * before it does anything else.
 */
#ifndef LUNAR_COORDINATOR_COMMIT_H
#define LUNAR_COORDINATOR_COMMIT_H

#include "base/error.h"
#include "coordinator/lvm.h"
#include "coordinator/mda.h"
#include "diskrpc/mdcopy.h"
#include "fencing/membership.h"

struct committer;
struct committer_config {
    int fd; /* of the LUN, O_DIRECT read-write, borrowed */
    const struct superblock *superblock;
    struct lvm *lvm;               /* borrowed */
    struct leadership *leadership; /* borrowed; NULL in tests of the metadata part alone */
    uint64_t term;
};
/* At takeover: compares on-disk metadata with the stored copy. Newer and sound on disk, and
 * committed under no lower term than the copy's: adopted (the predecessor died before its copy).
 * Anything else on disk, or damage: restored from the copy. None stored yet: adopted. Then one
 * commit stamps the VG with our term (tag lunar.t=TERM), so that every later text says who
 * committed it and a late write of an older coordinator is never taken for the predecessor's.
 * LUNAR_E_STALE: the metadata carries a higher term than ours; LUNAR_E_FOREIGN: the LUN holds
 * another VG, which is left alone. */
int committer_open(const struct committer_config *config, struct committer **ret,
                   struct error *err);
void committer_close(struct committer *c);
/* LUNAR_E_METADATA: what was on the disk was not ours; it was restored, nothing or nothing lasting
 * was done, try again. */
int committer_run(struct committer *c, const char *const *args, uint64_t basis, struct error *err);
/* What a catalogue that is read now is based upon, to be given to each commit that is decided on
 * it. It changes when a command that was taken for failed turns out to have taken effect: a commit
 * that was decided before, like the creation of a name that is there now, is refused with
 * LUNAR_E_METADATA. */
uint64_t committer_basis(const struct committer *c);
/* After a committer_run that failed: looks, restores and copies until what the disk holds is known
 * and stands in the copy. 0; else no catalogue that is read from the disk may be acted upon, since
 * it may yet be undone; try again. Free of I/O after a commit that ended well. */
int committer_settle(struct committer *c, struct error *err);
/* Now and then while nothing is committed: damage to areas or copy is repaired before a second one
 * meets it. 0: all is well (again); LUNAR_E_STALE: deposed; else try later. */
int committer_tend(struct committer *c, struct error *err);
uint64_t committer_seqno(const struct committer *c);
/* What we know: the VG's metadata as LVM wrote it; after committer_settle what the disk holds, and
 * what a late write to it cannot change. Borrowed until the next call. */
const char *committer_text(const struct committer *c);

/* --- numbered kill points around every external effect (commit, grant write, command) --- */
/* LUNAR_KILL_AT=n in the environment kills the process with SIGKILL at the n-th point passed; each
 * point passed is counted and, with LUNAR_KILL_TRACE=FILE, appended to FILE as "n name". Unset:
 * free of cost. Thread-safe. */
void effect_point(const char *name);

#endif
