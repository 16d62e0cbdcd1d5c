/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lunarctl: the operator's command. It finds the command among one table, hands it the rest of the
 * line and exits with what it returns. Failure modes: an unknown word is answered with the nearest
 * known one, exit 2.
 */
#include "cli.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static const struct command commands[] = {
    {"lun", "format", "DEVICE", "Make a pool on a LUN",
     "Creates the LVM volume group, the reserved area with its two superblocks, the sanlock "
     "lockspace and\n"
     "leases. DEVICE must be a block device that nothing on this node uses. A device that carries\n"
     "anything is refused unless --force is given; a pool that some node still uses is refused "
     "always.\n"
     "Killed at any point, the LUN stays unusable and a second run starts over.",
     cmd_lun_format},
    {"lun", "dump", "DEVICE", "Decode the reserved area, read-only",
     "Works with every daemon dead, on the device or on an image of it. Shows the superblocks, who "
     "holds\n"
     "which lease, the message pages, grants, reports, the copies of LVM's metadata and LVM's own\n"
     "sequence number. What cannot be decoded is shown as \"damaged\" with the reason. Exit code 1 "
     "if no\n"
     "superblock is readable.",
     cmd_lun_dump},
    {"", "status", "", "Show the pool: coordinator, space, volumes",
     "Asks the coordinator, over the LUN, through this node's agent.", cmd_status},
    {"", "verify", "", "Compare what is kept in several places",
     "The catalogue, the grants in the coordinator's memory and on the LUN, the nodes' reports, "
     "the "
     "maps\n"
     "and storage daemons that stand on the nodes. Prints \"clean\", or each disagreement that is "
     "still\n"
     "there 5 s later, with what to do about it; exit code 1 then. Changes nothing.",
     cmd_verify},
    {"pool", "show", "", "Show the pool's space and its limits",
     "Asks the coordinator, over the LUN, through this node's agent.", cmd_pool_show},
    {"pool", "set", "", "Change the pool's limits",
     "With a limit of overcommit, a volume that would make the sum of all volumes' sizes larger is "
     "not\n"
     "created; what exists is left alone. The settings stand in the LVM metadata, in tags of the "
     "VG.",
     cmd_pool_set},
    {"pool", "extend", "[DEVICE]", "Take what the pool's LUNs have grown by, or another LUN",
     "Without DEVICE: after the array has made a LUN larger and every node has looked at it "
     "again.\n"
     "With DEVICE: another LUN, on which nothing may be, becomes the pool's. Either way the "
     "coordinator\n"
     "asks each node; if one does not see it, it is named and the pool is not changed.",
     cmd_pool_extend},
    {"node", "list", "", "List the pool's nodes",
     "States are sanlock's: LIVE, FAIL (lease expired, not yet proved dead), DEAD, FREE, UNKNOWN; "
     "LEFT is\n"
     "a node that left cleanly. HEARD is the age of its last page.",
     cmd_node_list},
    {"node", "status", "", "Show this node's agent and its volumes",
     "Answered by the agent alone: works without a coordinator.", cmd_node_status},
    {"node", "check", "[DEVICE]", "Check this machine: daemons, watchdog, modules, transport",
     "Compares what sanlock and wdmd run with, and how soon the LUN's transport gives up an I/O "
     "(iSCSI,\n"
     "Fibre Channel, NVMe over fabrics, multipath, SCSI), with what the pool counts on, and says "
     "which\n"
     "setting to change. DEVICE is the LUN; without it the agent is asked. Changes nothing. Exit "
     "code 1 if\n"
     "anything is FAIL.",
     cmd_node_check},
    {"node", "identity", "", "Print this node's name for sanlock",
     "The name is a hash of the node's name and the machine's identity (DMI product UUID, else\n"
     "/etc/machine-id). sanlock must run with it: our_host_name in /etc/sanlock/sanlock.conf.",
     cmd_node_identity},
    {"node", "leave", "", "Leave the pool cleanly",
     "The agent gives back its leases and its host id at once, so that nobody waits for this node. "
     "Refused\n"
     "while a volume is attached here, unless --with-volumes is given (for a reboot): then file "
     "systems are\n"
     "written out first, and whoever still uses a volume gets I/O errors.",
     cmd_node_leave},
    {"node", "fence", "NODE", "Declare a machine dead that you have switched off",
     "You swear that NODE is off, so that its volumes may be attached elsewhere before sanlock has "
     "proved\n"
     "its death. Refused while its lease is being renewed. If it runs after all, whatever it still "
     "writes\n"
     "is lost, and may destroy what others write. There is no way back for that life of the node: "
     "it comes\n"
     "back by joining again.",
     cmd_node_fence},
    {"coordinator", "resign", "", "Let the coordinator on this node step down",
     "It gives the lease back and exits; a standby takes over. Where several pools have a "
     "coordinator\n"
     "here, --pool or --socket chooses.",
     cmd_coordinator_resign},
    {"volume", "create", "NAME", "Create a volume",
     "Thin by default: it takes space of the pool as it is written. The same name and size again "
     "is not an\n"
     "error, so an attempt whose outcome is unknown may be repeated.",
     cmd_volume_create},
    {"volume", "list", "", "List the volumes", NULL, cmd_volume_list},
    {"volume", "show", "NAME", "Show one volume and who has it attached",
     "NAME is the volume's name or its UUID.", cmd_volume_show},
    {"volume", "attach", "NAME", "Attach a volume to a node",
     "Prints the path of the block device on that node. Refused while the volume is attached "
     "elsewhere.\n"
     "NAME is the volume's name or its UUID.",
     cmd_volume_attach},
    {"volume", "detach", "NAME", "Detach a volume",
     "The device must not be in use (unmount it first). NAME is the volume's name or its UUID.",
     cmd_volume_detach},
    {"volume", "delete", "NAME", "Delete a volume and free its space",
     "Refused while it is attached. There is no way back. Its snapshots and clones stay, and what "
     "they\n"
     "stand on. NAME is the volume's name or its UUID.",
     cmd_volume_delete},
    {"volume", "expand", "NAME SIZE", "Make a volume larger",
     "While it is in use, too: its device has the new size when this returns. SIZE is the whole "
     "new size,\n"
     "as 20GiB; a volume is never made smaller. Of a thick one, what is new is zeroed first. The "
     "file\n"
     "system in it is not touched. The same again is not an error.",
     cmd_volume_expand},
    {"volume", "trim", "NAME", "Give back the space behind the end of a volume",
     "What a discard, a merge or too large a growth has left at the end of its layers goes back to "
     "the\n"
     "pool, of each layer that nobody has open; the volume must be detached. The coordinator does "
     "the\n"
     "same by itself a minute after a volume was detached, where it is worth it.",
     cmd_volume_trim},
    {"volume", "rollback", "NAME SNAPSHOT", "Set a volume back to one of its snapshots",
     "What was written since is lost; every snapshot stays, and so does the volume's size. Refused "
     "while\n"
     "it is attached.",
     cmd_volume_rollback},
    {"volume", "import", "FILE NAME", "Make a volume of a disk image",
     "On this node, by qemu-img: the volume NAME is made in FILE's size, attached here, filled, "
     "and "
     "detached.\n"
     "The format must be told. An image that needs another file is refused. Interrupted, the "
     "volume "
     "is\n"
     "deleted again; killed, it stays \"importing\" until you detach and delete it.",
     cmd_volume_import},
    {"volume", "export", "NAME FILE", "Write a volume or a snapshot to a disk image",
     "On this node, by qemu-img, from a clone that is made for it and deleted after it; so the "
     "volume may be\n"
     "in use. A thick volume must be attached nowhere. FILE is there when it is whole.",
     cmd_volume_export},
    {"volume", "tree", "", "Draw which layer stands on which",
     "Each chain from its bottom: what stands on a layer comes below it, indented where there are "
     "several.\n"
     "-o dot is for graphviz.",
     cmd_volume_tree},
    {"snapshot", "create", "VOLUME NAME [VOLUME NAME]...", "Take snapshots, all at one instant",
     "Whether the volumes are attached or not; prints the snapshots' ids. Several are all taken at "
     "one\n"
     "instant, on whichever nodes their volumes are, or none is: their writers wait a moment, 5 s "
     "at "
     "most.\n"
     "NAME is unique in the pool. One alone: the same again is not an error.",
     cmd_snapshot_create},
    {"snapshot", "delete", "NAME", "Delete a snapshot",
     "In any order. Its layer goes when neither a volume nor another snapshot stands on it. NAME "
     "is "
     "the\n"
     "snapshot's name or its UUID.",
     cmd_snapshot_delete},
    {"snapshot", "list", "[VOLUME]", "List the snapshots, of one volume or all", NULL,
     cmd_snapshot_list},
    {"rpc", "ping", "[NODE]", "Measure round trips over the LUN",
     "This node's agent sends a message to the coordinator by its page on the LUN, and the "
     "coordinator\n"
     "sends it back. NODE, if given, must be this node.",
     cmd_rpc_ping},
    {"rpc", "top", "", "Show the message channels, live",
     "One row per node: when it was heard, the term it has seen, what is queued for it, how long "
     "its\n"
     "acknowledgments (ACK) and answers (ANSWER, WORST) take, what was sent again, pages and I/O "
     "that\n"
     "failed (TROUBLES). From this node's agent, whose only channel is the one "
     "to the\n"
     "coordinator, or with --coordinator from the coordinator on this node, which sees all nodes. "
     "With\n"
     "-o json one object per line. Ctrl-C ends it; a daemon that goes away is waited for.",
     cmd_rpc_top},
    {"rpc", "trace", "", "Show the messages that passed, decoded",
     "From a ring that every daemon always keeps. '>' was sent, '<' was received, '-' is what "
     "else\n"
     "happened to the channel. Where the ring ran over between two looks a line says how many "
     "records are\n"
     "missing. With -o json one object per line. Ctrl-C ends --follow; a daemon that goes away "
     "meanwhile is\n"
     "waited for.",
     cmd_rpc_trace},
};
#define N_COMMANDS (sizeof commands / sizeof *commands)

static void print_commands(const char *group)
{
    for (size_t i = 0; i < N_COMMANDS; i++) {
        const struct command *c = &commands[i];
        char left[64];
        if (group && strcmp(c->group, group) != 0)
            continue;
        snprintf(left, sizeof left, "%s%s%s%s%s", c->group, *c->group ? " " : "", c->name,
                 *c->args ? " " : "", c->args);
        printf("  %-24s %s\n", left, c->summary);
    }
}

static int print_usage(const char *group)
{
    if (group)
        printf("usage: lunarctl %s COMMAND [OPTIONS]\n\nCommands:\n", group);
    else
        printf("usage: lunarctl [GLOBAL OPTIONS] COMMAND [OPTIONS]\n\n"
               "Thin, movable volumes on a LUN that many nodes share.\n\nCommands:\n");
    print_commands(group);
    printf("\nGlobal options:\n");
    cli_print_global_options();
    printf("  -V, --version                    print the version\n");
    printf(
        "\nEvery command answers --help. Exit codes: 0 done, 1 refused or failed, 2 wrong usage,\n"
        "3 outcome unknown (time-out). The manual is lunarctl(8).\n");
    return CLI_OK;
}

/* Edits (insert, drop, replace) between two words; words longer than the row are "far". */
static int distance(const char *a, const char *b)
{
    enum { ROW = 24 };
    int row[ROW + 1];
    size_t n = strlen(b);
    if (n > ROW || strlen(a) > ROW)
        return ROW;
    for (size_t j = 0; j <= n; j++)
        row[j] = (int)j;
    for (size_t i = 0; a[i]; i++) {
        int diagonal = row[0];
        row[0] = (int)i + 1;
        for (size_t j = 0; j < n; j++) {
            int replace = diagonal + (a[i] != b[j]);
            int other = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 1;
            diagonal = row[j + 1];
            row[j + 1] = replace < other ? replace : other;
        }
    }
    return row[n];
}

/* The word a command is known by at this level: in no group, its group or its only word; in a
 * group, its name. */
static const char *word_at(const struct command *c, const char *group)
{
    return group || !*c->group ? c->name : c->group;
}

static int unknown(const char *group, const char *word)
{
    const char *best = NULL, *elsewhere = NULL;
    int best_distance = 4; /* further apart is no typing error */

    for (size_t i = 0; i < N_COMMANDS; i++) {
        const struct command *c = &commands[i];
        if (*c->group && !group && strcmp(c->name, word) == 0 && !elsewhere)
            elsewhere = c->group;
        if (group && strcmp(c->group, group) != 0)
            continue;
        int d = distance(word, word_at(c, group));
        if (d < best_distance && d < (int)strlen(word_at(c, group))) {
            best = word_at(c, group);
            best_distance = d;
        }
    }
    fprintf(stderr, "lunarctl: unknown command '%s%s%s'", group ? group : "", group ? " " : "",
            word);
    if (elsewhere)
        fprintf(stderr, "; did you mean '%s %s'?\n", elsewhere, word);
    else if (best)
        fprintf(stderr, "; did you mean '%s%s%s'?\n", group ? group : "", group ? " " : "", best);
    else
        fprintf(stderr, " (see lunarctl %s%s--help)\n", group ? group : "", group ? " " : "");
    return CLI_USAGE;
}

static bool is_group(const char *word)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (*word && strcmp(commands[i].group, word) == 0)
            return true;
    return false;
}

static const struct command *find_command(const char *group, const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].group, group) == 0 && strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

int main(int argc, char **argv)
{
    struct cli cli = {.format = "text", .timeout_s = 60};
    const char *group = NULL;

    signal(SIGPIPE, SIG_IGN); /* a vanished peer or reader is an error code, not a death */
    int at = cli_parse_global(&cli, argc, argv);
    if (at < 0)
        return cli.exit_code;
    if (at < argc && is_group(argv[at]))
        group = argv[at++];
    if (at >= argc || strcmp(argv[at], "--help") == 0 || strcmp(argv[at], "-h") == 0 ||
        strcmp(argv[at], "help") == 0) {
        if (at >= argc && argc == 1) {
            fprintf(stderr, "lunarctl: what shall I do? (see lunarctl --help)\n");
            return CLI_USAGE;
        }
        return print_usage(group);
    }
    cli.command = find_command(group ? group : "", argv[at]);
    if (!cli.command)
        return unknown(group, argv[at]);
    return cli.command->run(&cli, argc - at, argv + at);
}
