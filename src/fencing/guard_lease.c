/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The member lease and the USED mark; see guard_lease.h.
 *
 * Happy path: one call each. Failure mode of the acquire: a shared one goes through a short
 * exclusive hold, so those that come at the same time refuse each other; they try again after
 * random pauses. Of USED: the lockspace is not there.
 */
#include "fencing/guard_lease.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "fencing/lockspace.h"
#include "fencing/sanlock_calls.h"

/* Twenty hosts at once were measured to have it after 3.1 s with these pauses; 30 s cover a rack
 * that boots together. */
#define ACQUIRE_LIMIT_S      30
#define ACQUIRE_PAUSE_MIN_MS 50
#define ACQUIRE_PAUSE_MAX_MS 500

static int random_pause_ms(void)
{
    uint16_t r = 0;
    if (getrandom(&r, sizeof r, 0) != (ssize_t)sizeof r)
        r = (uint16_t)getpid();
    return ACQUIRE_PAUSE_MIN_MS + r % (ACQUIRE_PAUSE_MAX_MS - ACQUIRE_PAUSE_MIN_MS + 1);
}

/*
 * -243..-247: another host is in the middle of its own acquire. EAGAIN, EBUSY, EEXIST: our
 * predecessor's socket is closed, but the daemon is still releasing its lease.
 */
static bool worth_retrying(int rv)
{
    return (rv <= SANLK_ACQUIRE_IDLIVE && rv >= SANLK_ACQUIRE_OWNED_RETRY) || rv == -EAGAIN ||
           rv == -EBUSY || rv == -EEXIST;
}

int member_acquire(int sanlock_fd, const struct superblock *sb, const char *device,
                   struct error *err)
{
    struct sanlk_resource *res =
        sanlock_make_resource(sb, device, LAYOUT_RESOURCE_MEMBER, SANLK_RES_SHARED);
    int64_t end = lockspace_now_s() + ACQUIRE_LIMIT_S;
    int rv;
    for (;;) {
        rv = sanlock_acquire(sanlock_fd, -1, SANLK_ACQUIRE_OWNER_NOWAIT, 1, &res, NULL);
        if (rv >= 0 || !worth_retrying(rv) || lockspace_now_s() >= end)
            break;
        lockspace_pause(random_pause_ms());
    }
    free(res);
    return rv < 0 ? sanlock_fail(err, rv, "cannot get the member lease") : 0;
}

int member_set_used(const struct uuid *pool_id, bool used, struct error *err)
{
    char lockspace[48];
    pool_lockspace(pool_id, lockspace);
    int rv = sanlock_set_config(lockspace, 0, used ? SANLK_CONFIG_USED : SANLK_CONFIG_UNUSED, NULL);
    return rv < 0 ? sanlock_fail(err, rv,
                                 used ? "cannot mark the lockspace as used"
                                      : "cannot mark the lockspace as unused")
                  : 0;
}
