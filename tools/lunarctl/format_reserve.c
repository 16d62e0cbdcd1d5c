/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lun format` and SCSI-3 persistent reservations: whether the device has them, and what dead pools
 * left of them.
 *
 * Happy path: the device is asked; keys and a reservation of an old pool, whose nodes are known to
 * be dead by now, are cleared, because they would refuse this machine's writes. Failure modes: a
 * pool that is to have reservations on a device that has none is refused; somebody else's keys are
 * left alone without --force.
 */
#include "cli.h"
#include "fencing/reservation.h"
#include "format.h"

static int open_device(const struct format *f, struct reservation **ret, struct error *err)
{
    const char *const devices[] = {f->device.path};
    return reservation_open(devices, 1, &f->sb.pool_id, ret, err);
}

int format_look_reserve(struct format *format, struct error *err)
{
    struct error why = ERROR_INIT;
    struct reservation *r;
    int rc = open_device(format, &r, &why);

    format->can_reserve = rc == 0;
    if (rc == 0)
        reservation_close(r);
    if (rc == 0 || !(format->sb.flags & SUPERBLOCK_FLAG_PR))
        return 0;
    return error_set(err, rc, "--require-pr is not possible: %s", why.text);
}

int format_clear_reserve(struct format *format, struct error *err)
{
    struct reservation *r;

    if (!format->can_reserve)
        return 0;
    int rc = open_device(format, &r, err);
    if (rc < 0)
        return rc;
    rc = reservation_clear(r, format->force, err);
    reservation_close(r);
    return rc;
}
