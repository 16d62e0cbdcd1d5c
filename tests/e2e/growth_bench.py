# SPDX-License-Identifier: Apache-2.0
"""`tools/bench grow`: what growing a thin volume under a writer at full speed costs, on virtual machines.

Happy path: three nodes, one coordinator and its standby; node 3 fills an empty volume ROUNDS times (the volume is deleted in
between); figures come from the agent's log (space_grown: from the ask until the longer map is in place) and from the writer.
A table, or one JSON document with -o json. Failure modes: exit 1 where a writer met an error or read back something else; 77
without virtual machines.

usage: growth_bench.py [-o json] [--gib G] [--rounds R] [--net-cut]
"""

import argparse
import json
import statistics
import sys

from growth_bed import GIB, Bed, Writer, commit_seconds, grow_seconds
from harness import Failed, Skip, fatal

WRITER = 3  # neither of the coordinators' nodes


def one_round(bed, number, size):
    """A volume filled; the writer's figures with the times of its growths and the commits they took."""
    name = f"round{number}"
    for n in range(1, bed.nodes + 1):
        bed.x(n, ": >/run/agent.log; : >/run/coordinator.log")
    device = bed.give(name, WRITER)
    w = Writer(bed, WRITER, device, size, number)
    result = w.end(3000)
    w.verify()
    result["grow_s"] = [round(s, 3) for s in grow_seconds(bed, WRITER)]
    result["coordinator_s"] = [s for n in (1, 2) for s in commit_seconds(bed, n)]
    bed.take(name, WRITER)
    return result


def summary(rounds):
    grows = sorted(s for r in rounds for s in r["grow_s"])
    commits = sorted(s for r in rounds for s in r["coordinator_s"])
    if not grows:
        raise Failed("the volume did not grow: write more than 128 MiB")
    return {
        "grow_p50_s": round(statistics.median(grows), 3),
        "grow_min_s": round(grows[0], 3),
        "grow_max_s": round(grows[-1], 3),
        "coordinator_p50_s": round(statistics.median(commits), 3),
        "coordinator_max_s": round(commits[-1], 3),
        "stalls": sum(r["stalls"] for r in rounds),
        "longest_stall_s": max(r["longest_stall_s"] for r in rounds),
        "errors": sum(r["errors"] for r in rounds),
        "commits_per_gib": round(len(commits) / sum(r["bytes"] / GIB for r in rounds), 2),
        "mib_per_s": [round(r["bytes"] / 2**20 / r["seconds"]) for r in rounds],
        "growths": len(grows),
        "bytes": sum(r["bytes"] for r in rounds),
        "rounds": [{k: r[k] for k in ("seconds", "stalls", "longest_stall_s", "grow_s", "coordinator_s")} for r in rounds],
    }


def show(s):
    print(f"{s['growths']} growths in {s['bytes'] / GIB:.1f} GiB ({s['commits_per_gib']} commits per GiB), written at "
          f"{min(s['mib_per_s'])} to {max(s['mib_per_s'])} MiB/s")
    print(f"from the ask to the longer map  median {s['grow_p50_s']:.3f} s, {s['grow_min_s']:.3f} to {s['grow_max_s']:.3f}")
    print(f"of that the coordinator         median {s['coordinator_p50_s']:.3f} s, at most {s['coordinator_max_s']:.3f}")
    print(f"stalls of 0.4 s or more         {s['stalls']}, the longest spell without a write {s['longest_stall_s']:.3f} s")
    print(f"errors                          {s['errors']}")


def main():
    p = argparse.ArgumentParser(prog="tools/bench grow", description=__doc__.splitlines()[0])
    p.add_argument("-o", choices=("text", "json"), default="text", dest="output")
    p.add_argument("--gib", type=float, default=4, help="written in each round (default 4)")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--net-cut", action="store_true", help="no network between the nodes: no hints, an idle side looks once a second")
    o = p.parse_args()
    size = int(o.gib * 1024) << 20
    try:
        with Bed("bench-grow", lun_size=f"{int(o.gib * 1.5) + 4}G", net_cut=o.net_cut) as bed:
            bed.pool_up()
            bed.put_filler()
            s = summary([one_round(bed, i, size) for i in range(o.rounds)])
    except (Skip, Failed) as error:
        fatal(error)
    if o.output == "json":
        json.dump(s, sys.stdout, indent=2)
        print()
    else:
        show(s)


main()
