/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every command of lunarctl shares: the global options, the declarative option tables from
 * which both the parser and --help are made, the exit codes and the way a failure is shown.
 *
 * A command is a function `int run(struct cli *, int argc, char **argv)` that returns the exit
 * code. Everything lives in one thread and for one command, so strings from argv are borrowed
 * throughout.
 */
#ifndef LUNARCTL_CLI_H
#define LUNARCTL_CLI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* The exit codes, as the man page lists them. */
enum cli_exit {
    CLI_OK = 0,
    CLI_REFUSED = 1, /* refused or failed: nothing was changed, or the message says what was */
    CLI_USAGE = 2,   /* the command line is wrong; nothing was tried */
    CLI_UNKNOWN = 3, /* time-out or lost connection: the request may still take effect */
};

struct cli;
struct command {
    const char *group; /* "" for a command of one word */
    const char *name;
    const char *args;    /* "NAME [NODE]" for the usage line */
    const char *summary; /* one line */
    const char *details; /* paragraphs for --help */
    int (*run)(struct cli *cli, int argc, char **argv);
};

struct cli {
    const struct command *command;
    const char *pool, *socket;
    uint64_t timeout_s;
    const char *format; /* of -o: "text", "json" or "dot" */
    bool dot;           /* the command takes "dot", too: set before cli_parse */
    char **args;        /* positional arguments, after cli_parse */
    int n_args;
    int exit_code; /* set when cli_parse says false */
};

enum cli_option_kind { CLI_FLAG, CLI_TEXT, CLI_NUMBER, CLI_SIZE };

struct cli_option {
    const char *name;
    char letter; /* 0: none */
    enum cli_option_kind kind;
    void *value; /* bool, const char *, uint64_t or uint64_t (bytes) */
    uint64_t min, max;
    const char *arg;
    const char *help;
};
#define CLI_OPTIONS_MAX 16

/*
 * Parses the options of cli->command and the global ones, in any order with the positional
 * arguments, of which between `min_args` and `max_args` must be there. False: --help was answered
 * or the usage is wrong; return cli->exit_code.
 */
bool cli_parse(struct cli *cli, const struct cli_option *options, int n_options, int min_args,
               int max_args, int argc, char **argv);
/* Consumes the global options in front of the command; returns the index of the first word behind,
 * or -1. */
int cli_parse_global(struct cli *cli, int argc, char **argv);
void cli_print_global_options(void);

bool cli_json(const struct cli *cli);
/* Shows the failure (and as JSON on standard output under -o json); returns the exit code that goes
 * with it. */
int cli_fail(const struct cli *cli, int code, const struct error *err);
int cli_usage(const struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A line of progress on standard error. */
void cli_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The sockets that --socket, LUNAR_SOCKET and --pool choose; `name` is "agent" or "coordinator". */
const char *cli_socket(const struct cli *cli, const char *name, char *buffer, unsigned size);

/* The commands. */
int cmd_lun_format(struct cli *cli, int argc, char **argv);
int cmd_lun_dump(struct cli *cli, int argc, char **argv);
int cmd_status(struct cli *cli, int argc, char **argv);
int cmd_verify(struct cli *cli, int argc, char **argv);
int cmd_pool_show(struct cli *cli, int argc, char **argv);
int cmd_pool_set(struct cli *cli, int argc, char **argv);
int cmd_pool_extend(struct cli *cli, int argc, char **argv);
int cmd_node_list(struct cli *cli, int argc, char **argv);
int cmd_node_status(struct cli *cli, int argc, char **argv);
int cmd_node_check(struct cli *cli, int argc, char **argv);
int cmd_node_identity(struct cli *cli, int argc, char **argv);
int cmd_node_leave(struct cli *cli, int argc, char **argv);
int cmd_node_fence(struct cli *cli, int argc, char **argv);
int cmd_coordinator_resign(struct cli *cli, int argc, char **argv);
int cmd_volume_create(struct cli *cli, int argc, char **argv);
int cmd_volume_list(struct cli *cli, int argc, char **argv);
int cmd_volume_show(struct cli *cli, int argc, char **argv);
int cmd_volume_attach(struct cli *cli, int argc, char **argv);
int cmd_volume_detach(struct cli *cli, int argc, char **argv);
int cmd_volume_delete(struct cli *cli, int argc, char **argv);
int cmd_volume_expand(struct cli *cli, int argc, char **argv);
int cmd_volume_trim(struct cli *cli, int argc, char **argv);
int cmd_volume_rollback(struct cli *cli, int argc, char **argv);
int cmd_volume_import(struct cli *cli, int argc, char **argv);
int cmd_volume_export(struct cli *cli, int argc, char **argv);
int cmd_volume_tree(struct cli *cli, int argc, char **argv);
int cmd_snapshot_create(struct cli *cli, int argc, char **argv);
int cmd_snapshot_delete(struct cli *cli, int argc, char **argv);
int cmd_snapshot_list(struct cli *cli, int argc, char **argv);
int cmd_rpc_ping(struct cli *cli, int argc, char **argv);
int cmd_rpc_top(struct cli *cli, int argc, char **argv);
int cmd_rpc_trace(struct cli *cli, int argc, char **argv);

#endif
