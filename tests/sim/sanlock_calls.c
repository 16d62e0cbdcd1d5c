/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What src/fencing/lockspace.c calls of libsanlock and of sanlock_calls.c, over the model's daemon:
 * the list of lockspaces, and the add, which blocks until the daemon has decided. The choice of a
 * host id, its claim and the watch of a lease of one's own name are production code.
 */
#include "fencing/sanlock_calls.h"

#include <errno.h>
#include <string.h>

#include "sim/sanlock_model.h"

#define POLL_US (100 * SIM_MS)

static struct model_daemon *daemon_here(void)
{
    return model_daemon(process_current()->machine);
}

int sanlock_fail(struct error *err, int rv, const char *doing)
{
    return error_set(err, LUNAR_E_INDETERMINATE, "%s: sanlock says %d", doing, rv);
}

void sanlock_fill_lockspace(struct sanlk_lockspace *ret, const struct superblock *sb,
                            const char *device, uint32_t host_id)
{
    memset(ret, 0, sizeof *ret);
    pool_lockspace(&sb->pool_id, ret->name);
    ret->host_id = host_id;
    strncpy(ret->host_id_disk.path, device, sizeof ret->host_id_disk.path - 1);
}

int sanlock_find_lockspace(const char *name, struct sanlk_lockspace *ret, struct error *err)
{
    const struct model_daemon *d = daemon_here();
    (void)name;
    if (d->dead)
        return error_set(err, -ECONNREFUSED, "the sanlock daemon is gone");
    if (d->state == DAEMON_OUT)
        return 0;
    sanlock_fill_lockspace(ret, &model_sb, "/dev/lun", d->host_id);
    return 1;
}

int sanlock_inq_lockspace(struct sanlk_lockspace *ls, uint32_t flags)
{
    const struct model_daemon *d = daemon_here();
    (void)ls;
    (void)flags;
    return d->state == DAEMON_JOINED ? 0 : d->state == DAEMON_JOINING ? -EINPROGRESS : -ENOENT;
}

int sanlock_add_lockspace_timeout(struct sanlk_lockspace *ls, uint32_t flags, uint32_t io_timeout)
{
    struct model_daemon *d = daemon_here();
    (void)flags;
    (void)io_timeout;
    if (d->state != DAEMON_OUT)
        return d->state == DAEMON_JOINED ? -EEXIST : -EINPROGRESS;
    model_join(process_current()->machine, (uint32_t)ls->host_id, d->host_name);
    while (d->state == DAEMON_JOINING)
        fiber_sleep(POLL_US);
    if (d->state == DAEMON_JOINED)
        return 0;
    return d->join_rc == LUNAR_E_BUSY ? SANLK_HOSTID_BUSY : -ETIMEDOUT;
}
