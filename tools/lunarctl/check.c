/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lunarctl node check`: is this machine fit to be a node of that pool?
 *
 * Happy path: the superblock of the LUN gives N and W; daemons, watchdog, modules and the LUN's
 * transport are compared with them; a line per finding, with the setting to change where one is
 * not OK. Works before the agent ever ran, and changes nothing. Failure modes: no LUN named and no
 * agent to ask for it, or no superblock on it: there is nothing to compare with, exit 1.
 */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/helper.h"
#include "base/io.h"
#include "diskrpc/message.h"
#include "diskrpc/superblock.h"
#include "fencing/sanlock_daemon.h"
#include "output.h"
#include "request.h"

#define AGENT_TIMEOUT_MS 2000
#define RUN_TIMEOUT_MS   10000

static bool run(const char *const *argv, char *output, size_t output_size)
{
    return helper_run(argv, RUN_TIMEOUT_MS, output, output_size, NULL) == 0;
}

/* --- the daemons --- */

static void check_name(struct check *check, const struct sanlock_daemon *daemon,
                       const char *node_name)
{
    char machine[128], wanted[LEASES_NAME_SIZE];
    struct error err = ERROR_INIT;
    if (leases_machine_id(machine, sizeof machine, &err) < 0) {
        struct check_finding *f = check_add(check, CHECK_LEVEL_FAIL, "machine identity");
        snprintf(f->advice, sizeof f->advice, "%s", err.text);
        return;
    }
    leases_host_name(node_name, machine, wanted);
    bool well = strcmp(daemon->host_name, wanted) == 0;
    struct check_finding *f =
        check_add(check, well ? CHECK_LEVEL_OK : CHECK_LEVEL_FAIL, "sanlock host name");
    snprintf(f->value, sizeof f->value, "%s", daemon->host_name);
    snprintf(f->bound, sizeof f->bound, "%s", wanted);
    if (!well)
        snprintf(f->advice, sizeof f->advice,
                 "our_host_name = %s in /etc/sanlock/sanlock.conf, and restart sanlock (that is "
                 "the name of node %s on this machine)",
                 wanted, node_name);
}

static void check_watchdog_timeout(struct check *check, const struct sanlock_daemon *daemon)
{
    int want = check->timeouts.watchdog_fire_timeout_s;
    bool well = daemon->watchdog_fire_timeout_s == want;
    struct check_finding *f =
        check_add(check, well ? CHECK_LEVEL_OK : CHECK_LEVEL_FAIL, "watchdog_fire_timeout");
    snprintf(f->value, sizeof f->value, "%d s", daemon->watchdog_fire_timeout_s);
    snprintf(f->bound, sizeof f->bound, "%d s, as the pool", want);
    if (!well)
        snprintf(f->advice, sizeof f->advice,
                 "watchdog_fire_timeout = %d in /etc/sanlock/sanlock.conf, and restart sanlock "
                 "(3.9 or newer; this is %s)",
                 want, daemon->version);

    f = check_add(check, daemon->use_watchdog ? CHECK_LEVEL_OK : CHECK_LEVEL_FAIL,
                  "sanlock uses a watchdog");
    snprintf(f->value, sizeof f->value, "%s", daemon->use_watchdog ? "yes" : "no (-w 0)");
    if (!daemon->use_watchdog)
        snprintf(f->advice, sizeof f->advice,
                 "remove -w 0 from sanlock's command line (Debian: /etc/default/sanlock) and "
                 "use_watchdog = 0 from /etc/sanlock/sanlock.conf, and restart it");
}

/* Measured (timeouts.c): any value does, because the guard takes SIGTERM for a killpath. */
static void check_kill_grace(struct check *check, const struct sanlock_daemon *daemon)
{
    struct check_finding *f = check_add(check, CHECK_LEVEL_OK, "kill grace");
    if (daemon->kill_grace_s == 0)
        snprintf(f->value, sizeof f->value, "0 s: SIGTERM at %d s, no killpath",
                 check->timeouts.fail_s);
    else
        snprintf(f->value, sizeof f->value, "%d s: killpath at %d s, SIGTERM %d s later",
                 daemon->kill_grace_s, check->timeouts.fail_s, daemon->kill_grace_s);
}

static void check_sanlock(struct check *check, const char *node_name)
{
    struct sanlock_daemon daemon;
    struct error err = ERROR_INIT;
    int rc = sanlock_daemon_read(&daemon, &err);
    struct check_finding *f =
        check_add(check, rc < 0 ? CHECK_LEVEL_FAIL : CHECK_LEVEL_OK, "sanlock");
    snprintf(f->value, sizeof f->value, "%s", rc < 0 ? "does not answer" : daemon.version);
    if (rc < 0) {
        snprintf(f->advice, sizeof f->advice, "%s", err.text);
        return;
    }
    check_name(check, &daemon, node_name);
    check_watchdog_timeout(check, &daemon);
    check_kill_grace(check, &daemon);
}

static void check_wdmd(struct check *check, bool joined)
{
    struct error err = ERROR_INIT;
    int rc = watchdog_check(joined, check->timeouts.watchdog_fire_timeout_s, &err);
    struct check_finding *f = check_add(check, rc < 0 ? CHECK_LEVEL_FAIL : CHECK_LEVEL_OK, "wdmd");
    snprintf(f->value, sizeof f->value, "%s",
             rc < 0   ? "not ready"
             : joined ? "answers, watchdog armed"
                      : "answers (armed with the join)");
    if (rc < 0)
        snprintf(f->advice, sizeof f->advice, "%s", err.text);
}

/* --- output --- */

static json_t *result(const struct check *check, const char *device)
{
    json_t *doc = json_object(), *list = json_array();
    js_set(doc, "device", js_text(device));
    js_set(doc, "io_timeout_s", js_u64((uint64_t)check->timeouts.io_timeout_s));
    js_set(doc, "watchdog_timeout_s", js_u64((uint64_t)check->timeouts.watchdog_fire_timeout_s));
    js_set(doc, "fail_s", js_u64((uint64_t)check->timeouts.fail_s));
    js_set(doc, "worst", js_text(check_level_name(check_worst(check))));
    for (unsigned i = 0; i < check->n_findings; i++) {
        const struct check_finding *f = &check->findings[i];
        json_t *o = json_object();
        js_set(o, "level", js_text(check_level_name(f->level)));
        js_set(o, "subject", js_text(f->subject));
        js_set(o, "value", js_text(f->value));
        js_set(o, "bound", js_text(f->bound));
        js_set(o, "advice", js_text(f->advice));
        js_append(list, o);
    }
    js_set(doc, "findings", list);
    return doc;
}

static void print_check(const json_t *doc)
{
    static const char *const headers[] = {"LEVEL", "WHAT", "IS", "SHOULD BE"};
    struct text_table *t = text_table_new(headers, 4);
    json_t *f, *findings = json_object_get(doc, "findings");
    size_t i;

    json_array_foreach(findings, i, f)
    {
        text_table_row(t, (const char *[]){js_get_text(f, "level"), js_get_text(f, "subject"),
                                           js_get_text(f, "value"), js_get_text(f, "bound")});
    }
    text_table_print(t, 0);
    json_array_foreach(findings, i, f)
    {
        if (*js_get_text(f, "advice"))
            printf("\n%s %s: %s\n", js_get_text(f, "level"), js_get_text(f, "subject"),
                   js_get_text(f, "advice"));
    }
}

/* --- the command --- */

struct machine {
    char device[256], node_name[256];
    bool joined;
};

/* What the agent says, if there is one, where the command line does not. */
static void ask_agent(const struct cli *cli, struct machine *m)
{
    Lunar__Envelope *answer = request_agent_status(cli, AGENT_TIMEOUT_MS);
    if (answer) {
        const Lunar__AgentStatus *s = answer->response->agent_status;
        if (!*m->device)
            snprintf(m->device, sizeof m->device, "%s", s->device);
        snprintf(m->node_name, sizeof m->node_name, "%s", s->node);
        m->joined = strcmp(s->state, "joined") == 0;
    }
    envelope_free(answer);
    if (!*m->node_name && gethostname(m->node_name, sizeof m->node_name - 1) < 0)
        m->node_name[0] = '\0';
}

/* "sda" for "/dev/sda", "dm-3" for "/dev/mapper/mpatha"; false: no block device. */
static bool kernel_name(const char *device, char ret[64])
{
    char link[64], place[512];
    struct stat st;
    if (stat(device, &st) < 0 || !S_ISBLK(st.st_mode))
        return false;
    snprintf(link, sizeof link, "/sys/dev/block/%u:%u", major(st.st_rdev), minor(st.st_rdev));
    ssize_t n = readlink(link, place, sizeof place - 1);
    if (n <= 0)
        return false;
    place[n] = '\0';
    const char *slash = strrchr(place, '/');
    snprintf(ret, 64, "%s", slash ? slash + 1 : place);
    return true;
}

static int read_timeouts(const char *device, struct timeouts *ret, struct error *err)
{
    struct superblock sb;
    int fd = io_open(device, 0, err);
    int rc = fd < 0 ? fd : superblock_read(fd, &sb, err);
    if (fd >= 0)
        close(fd);
    return rc < 0
               ? rc
               : timeouts_compute((int)sb.io_timeout_s, (int)sb.watchdog_fire_timeout_s, ret, err);
}

int cmd_node_check(struct cli *cli, int argc, char **argv)
{
    const char *node = NULL;
    const struct cli_option options[] = {
        {"node", 0, CLI_TEXT, &node, 0, 0, "NAME",
         "the node's name (default: what the agent says, else the host name)"},
    };
    struct machine m = {0};
    struct error err = ERROR_INIT;
    char name[64];

    if (!cli_parse(cli, options, 1, 0, 1, argc, argv))
        return cli->exit_code;
    if (cli->n_args == 1)
        snprintf(m.device, sizeof m.device, "%s", cli->args[0]);
    ask_agent(cli, &m);
    if (node)
        snprintf(m.node_name, sizeof m.node_name, "%s", node);
    if (!*m.device)
        return cli_usage(cli, "no agent runs here to be asked for the LUN: name the DEVICE");

    struct check *check = calloc(1, sizeof *check);
    if (!check)
        abort();
    *check = (struct check){.root = "", .run = run};
    int rc = read_timeouts(m.device, &check->timeouts, &err);
    if (rc == 0) {
        check_sanlock(check, m.node_name);
        check_wdmd(check, m.joined);
        check_watchdog_device(check);
        check_modules(check);
        if (kernel_name(m.device, name))
            check_transport(check, name);
        int code = output_emit(cli, result(check, m.device), print_check);
        rc = code == CLI_OK && check_worst(check) == CHECK_LEVEL_FAIL ? CLI_REFUSED : code;
    } else {
        rc = cli_fail(cli, rc, &err);
    }
    free(check);
    return rc;
}
