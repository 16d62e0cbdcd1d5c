/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's settings and the watchdog behind it; see sanlock_daemon.h.
 *
 * libsanlock has no call for the settings, so the `sanlock` command is asked. Its first section is
 * the daemon's; the later ones (processes, lockspaces) repeat some keys with other meanings and are
 * not read. 3.8.5 does not print watchdog_fire_timeout because 60 is compiled in.
 *
 * The watchdog is believed in three steps: sanlock says that it uses one; wdmd answers on its
 * socket and reports the timeout that we count on; and the kernel, where it tells, says that a
 * watchdog device is running. Failure modes: wdmd not there; another program owns the device;
 * `-w 0`; a timeout that the device rounded to something else.
 */
#include "fencing/sanlock_daemon.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wdmd.h>

#include "base/helper.h"
#include "fencing/sanlock_calls.h"

#define STATUS_LIMIT_MS               10000
#define STATUS_BYTES                  65536
#define FIRE_TIMEOUT_OF_OLD_DAEMONS_S 60

/* The value of "    key=value" in the first section; copied to `ret`. */
static bool find_value(const char *text, const char *key, char *ret, size_t ret_size)
{
    size_t key_len = strlen(key);
    const char *line = strchr(text, '\n'); /* the first line is "daemon NAME" */
    while (line && line[1] == ' ') {
        const char *p = line + 1 + strspn(line + 1, " ");
        line = strchr(p, '\n');
        if (strncmp(p, key, key_len) != 0 || p[key_len] != '=')
            continue;
        p += key_len + 1;
        size_t len = strcspn(p, "\n");
        if (len >= ret_size)
            return false;
        memcpy(ret, p, len);
        ret[len] = '\0';
        return true;
    }
    return false;
}

int sanlock_daemon_parse(const char *text, struct sanlock_daemon *ret, struct error *err)
{
    char value[64];
    memset(ret, 0, sizeof *ret);
    if (strncmp(text, "daemon ", 7) != 0 ||
        !find_value(text, "our_host_name", ret->host_name, sizeof ret->host_name) ||
        !find_value(text, "use_watchdog", value, sizeof value))
        return error_set(err, LUNAR_E_EXEC,
                         "'sanlock client status -D' does not tell the daemon's host name and "
                         "watchdog; sanlock 3.8 or newer is needed");
    ret->use_watchdog = strcmp(value, "1") == 0;
    ret->watchdog_fire_timeout_s = FIRE_TIMEOUT_OF_OLD_DAEMONS_S;
    if (find_value(text, "watchdog_fire_timeout", value, sizeof value))
        ret->watchdog_fire_timeout_s = atoi(value);
    ret->kill_grace_s =
        find_value(text, "kill_grace_seconds", value, sizeof value) ? atoi(value) : -1;
    if (!find_value(text, "version_str", ret->version, sizeof ret->version))
        strcpy(ret->version, "?");
    return 0;
}

int sanlock_daemon_read(struct sanlock_daemon *ret, struct error *err)
{
    static const char *const argv[] = {"sanlock", "client", "status", "-D", NULL};
    char *text = malloc(STATUS_BYTES);
    if (!text)
        abort();
    int rv = helper_run(argv, STATUS_LIMIT_MS, text, STATUS_BYTES, err);
    if (rv == LUNAR_E_INDETERMINATE) /* it only reads, so nothing is in doubt */
        rv = error_set(err, LUNAR_E_TIMEOUT, "the sanlock daemon does not answer; see its log");
    uint32_t version = 0, proto = 0;
    int alive = rv == LUNAR_E_EXEC ? sanlock_version(0, &version, &proto) : 0;
    if (alive < 0) /* the command says nothing when there is no daemon */
        rv = sanlock_fail(err, alive, "cannot ask sanlock for its settings");
    if (rv == 0)
        rv = sanlock_daemon_parse(text, ret, err);
    free(text);
    return rv;
}

/* 1: a watchdog runs, 0: none of those that tell does, -1: the kernel does not tell. */
static int kernel_watchdog_active(void)
{
    glob_t found;
    int answer = -1;
    if (glob("/sys/class/watchdog/watchdog*/state", 0, NULL, &found) != 0)
        return -1;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        char state[16] = "";
        FILE *f = fopen(found.gl_pathv[i], "re");
        if (!f)
            continue;
        if (fgets(state, sizeof state, f))
            answer = strncmp(state, "active", 6) == 0 || answer == 1;
        fclose(f);
    }
    globfree(&found);
    return answer;
}

int watchdog_check(bool joined, int fire_timeout_s, struct error *err)
{
    int interval_s = 0, fire_s = 0;
    uint64_t last_keepalive = 0;
    int con = wdmd_connect();
    int rv = con < 0 ? con : wdmd_status(con, &interval_s, &fire_s, &last_keepalive);
    if (con >= 0)
        close(con);
    if (rv < 0)
        return error_set(err, LUNAR_E_NO_WATCHDOG,
                         "wdmd does not answer, so nothing would reset this node when it must die: "
                         "start it (systemctl start wdmd; before that, modprobe softdog where "
                         "there is no hardware watchdog). It ends at once if another program "
                         "holds /dev/watchdog");
    if (!joined)
        return 0;
    if (fire_s != fire_timeout_s)
        return error_set(err, LUNAR_E_NO_WATCHDOG,
                         "wdmd's watchdog fires after %d s, but the pool counts on %d: set "
                         "watchdog_fire_timeout = %d in /etc/sanlock/sanlock.conf; if it is set, "
                         "the watchdog device cannot do it",
                         fire_s, fire_timeout_s, fire_timeout_s);
    if (kernel_watchdog_active() == 0)
        return error_set(err, LUNAR_E_NO_WATCHDOG,
                         "the kernel says that no watchdog device is running; see wdmd's log");
    return 0;
}
