# SPDX-License-Identifier: Apache-2.0
"""The command line of tools/vmcluster.

Happy path: one function per subcommand, each returning an exit code. Failure modes: a Failure is
printed as one line "vmcluster: ..." and gives the exit code it carries (1; 255 node unreachable;
124 time-out; 77 this machine lacks what prepare needs); wrong usage is 2; Ctrl-C is 130 after
cleaning up.
"""
import argparse
import json
import os
import signal
import sys

from . import Failure
from .cluster import Cluster, all_names

EPILOG = """\
Clusters: --cluster NAME or LUNAR_CLUSTER (default "default"); several can be up at once.
Cache: ${LUNAR_CACHE:-${XDG_CACHE_HOME:-~/.cache}/lunar}. LUNAR_ACCEL=kvm|tcg overrides the probe.
A node is written node1 or 1. With up --iscsi a further machine, "target", has the LUN and exports it
to the nodes as /dev/sda over a storage network; it is a node to every command but "all", and
`exec target -- node-target stop` (start) ends the export. Exit codes: 255 node unreachable, 124 time-out, 77 this machine
lacks packages or a mirror, 2 usage, 1 other failures; exec gives the command's own (128 + N after
signal N).
"""


def cluster_of(args):
    return Cluster(getattr(args, "cluster", None) or os.environ.get("LUNAR_CLUSTER") or "default")


def node_of(args):
    return cluster_of(args).need().node(args.node)


def nodes_of(args):
    cluster = cluster_of(args).need()
    return cluster.nodes() if args.node == "all" else [cluster.node(args.node)]


# ---- subcommands ----

def do_prepare(args):
    from . import life
    built = life.prepare(args.rebuild)
    print(f"ready: {built['base']} ({built['accel']})")


def do_up(args):
    from . import life
    life.up(cluster_of(args), args)


def do_down(args):
    from . import life
    names = all_names() if args.all else [cluster_of(args).name]
    for name in names:
        life.down(Cluster(name))


def do_status(args):
    from . import life
    found = life.status(cluster_of(args))
    if args.output == "json":
        print(json.dumps(found, indent=1))
        return 0
    if not found["up"]:
        print(f"cluster {found['cluster']}: not up")
        return 0
    print(f"cluster {found['cluster']}  accel {found['accel']}  lun {found['lun']}")
    for row in found["nodes"]:
        facts = f"  ({row['off_reason']})" if row["state"] == "off" else \
            f"  pid {row['pid']}  up {row['uptime_s']:.0f} s  lun {row['lun']}  net {row['net']}" + \
            (f"  san {row['san']}" if "san" in row else "")
        print(f"{row['node']}  {row['state']}{facts}")
    return 0


def do_exec(args):
    from . import remote
    if not args.command:
        raise Failure("exec: no command", 2)
    try:
        node = node_of(args)
    except Failure as e:        # never to be taken for the command's own exit code
        raise Failure(str(e), remote.UNREACHABLE) from e
    return remote.main_exec(node, args.command, args.timeout, args.no_stdin)


def do_push(args):
    from . import remote
    for node in nodes_of(args):
        remote.push(node, args.file, args.dest)


def do_pull(args):
    from . import remote
    return remote.pull(node_of(args), args.file, args.dest)


def do_cut(args):
    from . import life
    life.cut(node_of(args))


def do_start(args):
    from . import life
    life.start(node_of(args))


def do_freeze(args):
    node = node_of(args)
    node.need("running", "paused")
    node.process.signal(signal.SIGSTOP)


def do_thaw(args):
    node = node_of(args)
    node.need("frozen")
    node.process.signal(signal.SIGCONT)


def do_pause(args):
    from .qmp import Qmp
    node = node_of(args)
    node.need("running", "paused")
    with Qmp(node) as qmp:
        qmp.command("stop")
    node.mark("paused", "paused")


def do_resume(args):
    from .qmp import Qmp
    node = node_of(args)
    node.need("running", "paused")
    with Qmp(node) as qmp:
        qmp.command("cont")
    node.mark("paused")


def do_lun(args):
    from . import lun
    faults = {"lun-hang": lun.hang, "lun-error": lun.error, "lun-heal": lun.heal}
    faults[args.word](node_of(args), args.disk)


def do_lun_slow(args):
    from . import lun
    lun.slow(node_of(args), args.iops, args.disk)


def do_lun_grow(args):
    from . import life, lun
    lun.grow(node_of(args), life.parse_size(args.size), args.disk)


def do_net(args):
    from . import life
    network, _, word = args.word.partition("-")
    cluster = cluster_of(args).need()
    everybody = args.node == "all" and network == "san"
    life.net(cluster, network, word, cluster.machines() if everybody else nodes_of(args))


def do_logs(args):
    from . import life
    node = node_of(args)
    text = life.console(node) if args.boot else b""
    for name in () if args.boot else ("console.log", "qemu.log"):
        if os.path.exists(node.path(name)):
            with open(node.path(name), "rb") as f:
                text += f.read()
    sys.stdout.buffer.write(text.replace(b"\r", b""))


def do_lun_path(args):
    print(cluster_of(args).need().config["lun"])


# ---- the parser ----

def positive(text):
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("a positive number")
    return value


def node_count(text):
    if not 1 <= int(text) <= 16:
        raise argparse.ArgumentTypeError("1 to 16 nodes")
    return int(text)


def add_up(p):
    p.add_argument("--name", dest="cluster", default=argparse.SUPPRESS, metavar="NAME",
                   help="the same as --cluster")
    p.add_argument("--nodes", type=node_count, default=3, metavar="N", help="default 3")
    p.add_argument("--lun-size", default="4G", metavar="SIZE",
                   help="of a new LUN file, sparse; default 4G")
    p.add_argument("--lun", metavar="FILE",
                   help="use (or create) this raw file and keep it at down")
    p.add_argument("--second-lun", metavar="SIZE",
                   help="a second LUN beside it (/dev/vdc); none by default")
    p.add_argument("--io-timeout", type=positive, default=2, metavar="N",
                   help="sanlock io_timeout in seconds, default 2")
    p.add_argument("--watchdog-timeout", type=positive, default=10, metavar="W",
                   help="sanlock watchdog_fire_timeout in seconds, default 10")
    p.add_argument("--mem", type=positive, default=768, metavar="MB",
                   help="memory of a node, default 768; its file system lives in there too")
    p.add_argument("--no-sanlock", dest="sanlock", action="store_false",
                   help="do not start wdmd and sanlock (see node-sanlock in the node)")
    p.add_argument("--net-cut", action="store_true", help="start with the nodes isolated")
    p.add_argument("--iscsi", choices=["fast", "slow"], nargs="?", const="fast",
                   help="the LUN by iSCSI from a further machine, with persistent reservations; "
                   "fast (default): a dead path fails its I/O after 5 s; slow: after 130 s")


def add_exec(p):
    p.add_argument("--timeout", type=float, metavar="S", help="end the command after S seconds")
    p.add_argument("-n", "--no-stdin", action="store_true", help="give the command no stdin")
    p.add_argument("command", nargs="*", metavar="CMD",
                   help="program and arguments, run without a shell")


def add_disk(p):
    p.add_argument("--disk", type=int, choices=[1, 2], default=1, help="which LUN, default 1")


NODE = ("node", {"metavar": "NODE", "help": "node1 or 1"})
NODES = ("node", {"metavar": "NODE", "help": "node1, 1 or all"})
FILE = ("file", {"metavar": "FILE"})
DEST = ("dest", {"metavar": "DEST"})

# name: (function, help, positional arguments, more)
COMMANDS = {
    "prepare": (do_prepare, "build the cache (up does it too): QEMU, kernel, node image", [],
                lambda p: p.add_argument("--rebuild", action="store_true",
                                         help="fetch the packages again")),
    "up": (do_up, "start a cluster; returns when every node runs commands and sanlock answers", [],
           add_up),
    "down": (do_down, "end the cluster's processes and remove its state (and its own LUN)", [],
             lambda p: p.add_argument("--all", action="store_true", help="every cluster of ours")),
    "status": (do_status, "what runs and which faults are on", [],
               lambda p: p.add_argument("-o", "--output", choices=["text", "json"],
                                        default="text")),
    "exec": (do_exec, "run a command in a node: exec NODE [--timeout S] [-n] -- CMD...; stdin is "
             "passed on unless it is a terminal", [NODE], add_exec),
    "push": (do_push, "copy a file into a node (or all), keeping its mode; a node forgets it when "
             "it is cut or reset", [NODES, FILE, DEST], None),
    "pull": (do_pull, "copy a file out of a node; DEST - is stdout", [NODE, FILE, DEST], None),
    "cut": (do_cut, "power a node off: SIGKILL of its QEMU", [NODE], None),
    "start": (do_start, "power a node on; it boots with a fresh file system, waits like up",
              [NODE], None),
    "freeze": (do_freeze, "stop a node's QEMU (SIGSTOP); its clock jumps at thaw", [NODE], None),
    "thaw": (do_thaw, "undo freeze", [NODE], None),
    "pause": (do_pause, "stop the virtual machine (QMP stop); its clock stops too", [NODE], None),
    "resume": (do_resume, "undo pause", [NODE], None),
    "lun-hang": (do_lun, "the node's LUN I/O hangs from now on", [NODE], add_disk),
    "lun-error": (do_lun, "the node's LUN I/O gets EIO from now on", [NODE], add_disk),
    "lun-heal": (do_lun, "undo lun-hang and lun-error; hung I/O goes on", [NODE], add_disk),
    "lun-slow": (do_lun_slow, "limit a node's LUN I/O to IOPS per second; 0: no limit",
                 [NODE, ("iops", {"type": int, "metavar": "IOPS"})], add_disk),
    "lun-grow": (do_lun_grow, "the LUN has SIZE for this node from now on, as after a rescan",
                 [NODE, ("size", {"metavar": "SIZE"})], add_disk),
    "net-cut": (do_net, "isolate a node from the others (exec still works)", [NODES], None),
    "net-heal": (do_net, "undo net-cut", [NODES], None),
    "san-cut": (do_net, "cut a machine off the storage network of up --iscsi", [NODES], None),
    "san-heal": (do_net, "undo san-cut", [NODES], None),
    "logs": (do_logs, "a node's console and its QEMU's messages", [NODE],
             lambda p: p.add_argument("--boot", action="store_true",
                                      help="only the console since the last start")),
    "lun-path": (do_lun_path, "print the path of the LUN's raw file", [], None),
}


def parser():
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--cluster", metavar="NAME", default=argparse.SUPPRESS,
                        help="which cluster, default $LUNAR_CLUSTER or \"default\"")
    top = argparse.ArgumentParser(prog="vmcluster", parents=[common], epilog=EPILOG,
                                  description="Test bed: virtual machines that share a LUN.",
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    subs = top.add_subparsers(dest="word", required=True, metavar="COMMAND")
    for name, (function, text, positionals, more) in COMMANDS.items():
        p = subs.add_parser(name, help=text, description=text, parents=[common])
        for word, settings in positionals:
            p.add_argument(word, **settings)
        if more:
            more(p)
        p.set_defaults(function=function)
    return top


def parse(argv):
    """Everything after the first "--" is exec's command, whatever it looks like."""
    split = argv.index("--") if "--" in argv else len(argv)
    args = parser().parse_args(argv[:split])
    if split < len(argv):
        if args.word != "exec":
            raise Failure(f"{args.word} takes no command", 2)
        args.command = args.command + argv[split + 1:]
    return args


def main(argv):
    try:
        args = parse(argv)
        return args.function(args) or 0
    except Failure as e:
        print(f"vmcluster: {e}", file=sys.stderr)
        return e.code
    except KeyboardInterrupt:
        print("vmcluster: interrupted", file=sys.stderr)
        return 130
