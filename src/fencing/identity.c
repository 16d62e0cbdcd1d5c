/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which machine this is: the half of a node's sanlock name that no configuration can get wrong
 * (SAFETY 7).
 *
 * Happy path: the DMI product UUID, which survives a new disk and a new system. Failure modes:
 * firmware without one or with a placeholder (then /etc/machine-id), a caller who may not read it
 * (refused, because falling back would make him another machine), neither (refused: a random
 * identity would make every reboot a stranger).
 */
#include "fencing/leases.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* One trimmed lower-case line of a small file; -errno, or -ENODATA if it is empty or does not fit.
 */
static int read_line(const char *path, char *ret, unsigned ret_size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, ret, ret_size);
    int saved = errno;
    close(fd);
    if (n < 0)
        return -saved;
    if ((unsigned)n == ret_size)
        return -ENODATA;
    while (n > 0 && isspace((unsigned char)ret[n - 1]))
        n--;
    ret[n] = '\0';
    for (char *p = ret; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    return n > 0 && !strchr(ret, '\n') ? 0 : -ENODATA;
}

/* Firmware that was never given an identity says so in one of these; two such machines would look
 * like one. */
static bool uuid_is_placeholder(const char *text)
{
    static const char *const known[] = {"03000200-0400-0500-0006-000700080009",
                                        "12345678-1234-5678-90ab-cddeefaabbcc"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(text, known[i]) == 0)
            return true;
    return strlen(text) != 36 || strspn(text, "0-") == 36 || strspn(text, "f-") == 36;
}

int leases_machine_id(char *ret, unsigned ret_size, struct error *err)
{
    const char *dmi = "/sys/class/dmi/id/product_uuid";
    int rv = read_line(dmi, ret, ret_size);
    if (rv == 0 && !uuid_is_placeholder(ret))
        return 0;
    /* Falling back here would give this machine two identities, one as root and one as everybody
     * else. */
    if (rv == -EACCES)
        return error_set(err, LUNAR_E_PERMISSION,
                         "%s tells which machine this is and only root may read it: run as root",
                         dmi);
    if (read_line("/etc/machine-id", ret, ret_size) == 0 && strcmp(ret, "uninitialized") != 0)
        return 0;
    return error_set(err, LUNAR_E_NOT_FOUND,
                     "this machine has no identity: neither %s nor /etc/machine-id holds one; "
                     "make one with systemd-machine-id-setup",
                     dmi);
}
