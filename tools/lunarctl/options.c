/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: option tables are turned into getopt_long's and into the text of --help, so
 * that the two cannot disagree. Happy path: every option is read into the variable its table names,
 * the positional arguments are counted. Failure modes: an unknown option, a missing argument, a
 * number out of range: one sentence, a pointer to --help, exit 2.
 */
#include "cli.h"

#include <errno.h>
#include <getopt.h>
#include <glob.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/size.h"
#include "diskrpc/superblock.h"

#define RUN_DIR       "/run/lunar" /* where the daemons listen */
#define LONG_BASE     256 /* getopt_long's val of option i is LONG_BASE + i: above every letter */
#define TIMEOUT_MAX_S 86400u

static int global_options(struct cli *cli, struct cli_option ret[CLI_OPTIONS_MAX])
{
    const struct cli_option global[] = {
        {"output", 'o', CLI_TEXT, &cli->format, 0, 0, "text|json", "how to print the result"},
        {"pool", 0, CLI_TEXT, &cli->pool, 0, 0, "NAME",
         "talk to the agent of this pool (/run/lunar/agent-NAME.sock)"},
        {"socket", 0, CLI_TEXT, &cli->socket, 0, 0, "PATH",
         "talk to this socket (default /run/lunar/agent.sock, or $LUNAR_SOCKET)"},
        {"timeout", 0, CLI_NUMBER, &cli->timeout_s, 1, TIMEOUT_MAX_S, "SECONDS",
         "give up waiting for an answer after this long (default 60)"},
        {"help", 'h', CLI_FLAG, NULL, 0, 0, NULL, "this text"},
    };
    memcpy(ret, global, sizeof global);
    return sizeof global / sizeof *global;
}

static void print_option(const struct cli_option *o)
{
    char left[64];
    char letter[8] = "    ";
    if (o->letter)
        snprintf(letter, sizeof letter, "-%c, ", o->letter);
    snprintf(left, sizeof left, "%s--%s%s%s", letter, o->name, o->arg ? " " : "",
             o->arg ? o->arg : "");
    printf("  %-32s %s\n", left, o->help);
}

void cli_print_global_options(void)
{
    struct cli unused = {0};
    struct cli_option global[CLI_OPTIONS_MAX];
    int n = global_options(&unused, global);
    for (int i = 0; i < n; i++)
        print_option(&global[i]);
}

static void print_help(const struct cli *cli, const struct cli_option *options, int n)
{
    const struct command *c = cli->command;
    printf("usage: lunarctl %s%s%s [OPTIONS]%s%s\n\n%s.\n", c->group, *c->group ? " " : "", c->name,
           *c->args ? " " : "", c->args, c->summary);
    if (c->details)
        printf("\n%s\n", c->details);
    if (n > 0) {
        printf("\nOptions:\n");
        for (int i = 0; i < n; i++)
            print_option(&options[i]);
    }
    printf("\nGlobal options:\n");
    cli_print_global_options();
    printf("\nExit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 outcome unknown "
           "(time-out).\n");
}

static int parse_number(const struct cli_option *o, const char *text, uint64_t *ret,
                        struct error *err)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || n < o->min || n > o->max)
        return error_set(err, LUNAR_E_INVALID,
                         "--%s takes a whole number from %" PRIu64 " to %" PRIu64 ", not '%s'",
                         o->name, o->min, o->max, text);
    *ret = n;
    return 0;
}

static int parse_size(const struct cli_option *o, const char *text, uint64_t *ret,
                      struct error *err)
{
    char min[SIZE_TEXT_SIZE], max[SIZE_TEXT_SIZE];
    uint64_t bytes;
    int rc = size_parse(text, &bytes, err);
    if (rc < 0)
        return rc;
    if (bytes < o->min || bytes > o->max)
        return error_set(err, LUNAR_E_INVALID, "--%s must lie between %s and %s, not '%s'", o->name,
                         size_format(o->min, min), size_format(o->max, max), text);
    *ret = bytes;
    return 0;
}

static int store(const struct cli_option *o, const char *text, struct error *err)
{
    switch (o->kind) {
    case CLI_FLAG:
        *(bool *)o->value = true;
        return 0;
    case CLI_TEXT:
        *(const char **)o->value = text;
        return 0;
    case CLI_NUMBER:
        return parse_number(o, text, o->value, err);
    case CLI_SIZE:
        return parse_size(o, text, o->value, err);
    }
    return 0;
}

static void make_getopt(const struct cli_option *options, int n, const char *prefix,
                        struct option ret_long[2 * CLI_OPTIONS_MAX + 1],
                        char ret_short[4 * CLI_OPTIONS_MAX])
{
    char *s = ret_short;
    s += sprintf(s, "%s", prefix);
    memset(ret_long, 0, sizeof(struct option) * (2 * CLI_OPTIONS_MAX + 1));
    for (int i = 0; i < n; i++) {
        bool has_arg = options[i].kind != CLI_FLAG;
        ret_long[i] = (struct option){options[i].name, has_arg ? required_argument : no_argument,
                                      NULL, LONG_BASE + i};
        if (options[i].letter)
            s += sprintf(s, "%c%s", options[i].letter, has_arg ? ":" : "");
    }
}

static const struct cli_option *find_option(const struct cli_option *all, int n, int val)
{
    for (int i = 0; i < n; i++)
        if (val == LONG_BASE + i || (all[i].letter && val == all[i].letter))
            return &all[i];
    return NULL;
}

static int check_global(const struct cli *cli)
{
    struct error err = ERROR_INIT;
    bool dot = strcmp(cli->format, "dot") == 0 && (!cli->command || cli->dot);
    if (!dot && strcmp(cli->format, "text") != 0 && strcmp(cli->format, "json") != 0)
        return cli_usage(cli, "-o takes 'text' or 'json', not '%s'", cli->format);
    if (cli->pool && pool_name_check(cli->pool, &err) < 0)
        return cli_usage(cli, "--pool: %s", err.text);
    return CLI_OK;
}

/* Runs getopt over argv. True: go on at *ret_first. */
static bool scan(struct cli *cli, const struct cli_option *all, int n, const char *prefix, int argc,
                 char **argv, bool *ret_help)
{
    struct option longs[2 * CLI_OPTIONS_MAX + 1];
    char shorts[4 * CLI_OPTIONS_MAX];
    struct error err = ERROR_INIT;
    int val;

    make_getopt(all, n, prefix, longs, shorts);
    optind = 0; /* glibc: start afresh, also after an earlier scan */
    opterr = 0;
    while ((val = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
        const struct cli_option *o = find_option(all, n, val);
        if (!o) {
            const char *bad = argv[optind - 1];
            cli->exit_code = val == ':' ? cli_usage(cli, "option '%s' needs an argument", bad)
                                        : cli_usage(cli, "unknown option '%s'", bad);
            return false;
        }
        if (!o->value) {
            *ret_help = true;
        } else if (store(o, optarg, &err) < 0) {
            cli->exit_code = cli_usage(cli, "%s", err.text);
            return false;
        }
    }
    cli->exit_code = *ret_help ? CLI_OK : check_global(cli);
    return cli->exit_code == CLI_OK;
}

bool cli_parse(struct cli *cli, const struct cli_option *options, int n_options, int min_args,
               int max_args, int argc, char **argv)
{
    struct cli_option all[2 * CLI_OPTIONS_MAX];
    bool help = false;

    if (n_options > 0)
        memcpy(all, options, (size_t)n_options * sizeof *options);
    int n = n_options + global_options(cli, all + n_options);
    if (!scan(cli, all, n, ":", argc, argv, &help))
        return false;
    if (help) {
        print_help(cli, options, n_options);
        cli->exit_code = CLI_OK;
        return false;
    }
    cli->args = argv + optind;
    cli->n_args = argc - optind;
    if (cli->n_args < min_args) {
        cli->exit_code = cli_usage(cli, "missing argument: it takes %s", cli->command->args);
        return false;
    }
    if (cli->n_args > max_args) {
        cli->exit_code = cli_usage(cli, "unexpected argument '%s'", cli->args[max_args]);
        return false;
    }
    return true;
}

int cli_parse_global(struct cli *cli, int argc, char **argv)
{
    struct cli_option all[CLI_OPTIONS_MAX];
    bool help = false, version = false;

    int n = global_options(cli, all);
    all[n++] =
        (struct cli_option){"version", 'V', CLI_FLAG, &version, 0, 0, NULL, "print the version"};
    if (!scan(cli, all, n, "+:", argc, argv, &help))
        return -1;
    if (version) {
        printf("lunarctl %s\n", LUNAR_VERSION);
        return -1;
    }
    return help ? argc : optind;
}

bool cli_json(const struct cli *cli)
{
    return strcmp(cli->format, "json") == 0;
}

int cli_usage(const struct cli *cli, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "lunarctl: ");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    if (cli->command)
        fprintf(stderr, " (see lunarctl %s%s%s --help)\n", cli->command->group,
                *cli->command->group ? " " : "", cli->command->name);
    else
        fprintf(stderr, " (see lunarctl --help)\n");
    return CLI_USAGE;
}

int cli_fail(const struct cli *cli, int code, const struct error *err)
{
    const char *text = err && err->text[0] ? err->text : error_text(code);

    fprintf(stderr, "lunarctl: %s (%s)\n", text, error_name(code));
    if (cli_json(cli)) {
        json_t *doc = json_pack("{s:{s:s, s:i, s:s%}}", "error", "name", error_name(code), "code",
                                code, "text", text, strlen(text));
        if (doc) /* NULL: the text is not UTF-8; standard error has it */
            json_dumpf(doc, stdout, JSON_INDENT(2));
        if (doc)
            printf("\n");
        json_decref(doc);
    }
    return code == LUNAR_E_INDETERMINATE || code == LUNAR_E_TIMEOUT ? CLI_UNKNOWN : CLI_REFUSED;
}

void cli_progress(const char *format, ...)
{
    va_list args;
    fprintf(stderr, "lunarctl: ");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
}

/* The daemon's only socket under another name: a coordinator listens under its pool's name alone.
 * Where there are several, the caller must choose. */
static bool find_socket(const char *name, char *buffer, unsigned size)
{
    char pattern[64];
    glob_t found;

    snprintf(pattern, sizeof pattern, RUN_DIR "/%s-*.sock", name);
    if (glob(pattern, 0, NULL, &found) != 0)
        return false;
    bool one = found.gl_pathc == 1;
    if (one)
        snprintf(buffer, size, "%s", found.gl_pathv[0]);
    globfree(&found);
    return one;
}

const char *cli_socket(const struct cli *cli, const char *name, char *buffer, unsigned size)
{
    const char *env = getenv("LUNAR_SOCKET");
    if (cli->socket)
        return cli->socket;
    if (cli->pool) {
        snprintf(buffer, size, RUN_DIR "/%s-%s.sock", name, cli->pool);
        return buffer;
    }
    if (env && *env && strcmp(name, "agent") == 0)
        return env;
    snprintf(buffer, size, RUN_DIR "/%s.sock", name);
    if (access(buffer, F_OK) != 0 && !find_socket(name, buffer, size))
        snprintf(buffer, size, RUN_DIR "/%s.sock", name);
    return buffer;
}
