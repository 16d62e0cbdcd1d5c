# SPDX-License-Identifier: Apache-2.0
"""The hints between two nodes with a network: what they save, and that cutting, flooding or switching them off loses
nothing.

The tests run in order on one cluster. The pings are 4 s apart: after 2 s without a message nobody polls fast.
"""

import json
import re

from harness import DEVICE, Cluster, expect, run_main, wait_for

c = Cluster("e2e-hint", nodes=2, build="build/dev", net_cut=False)


def start(hint):
    for n in (1, 2):
        c.x(n, f"mkdir -p /run/lunar; setsid lunar-agent --device {DEVICE} --hint {hint} >/run/agent.log 2>&1 </dev/null &")
    c.wait_joined((1, 2))
    c.x(1, f"setsid lunar-coordinator --device {DEVICE} --hint {hint} >/run/coordinator.log 2>&1 </dev/null &")
    return c.wait_leader(ask=2)


def ping_from_idle(count):
    return c.ctl(2, "rpc", "ping", "-c", count, "-i", 4000)["ms"]


def listening(node, daemon):
    """The address in the daemon's log, which must be one that the kernel knows, too."""
    log = c.x(node, f"cat /run/{daemon}.log").stdout
    found = re.search(r"hints address=(\S+)", log)
    expect(found, f"{daemon} on node{node} does not say where it listens: {log[-400:]}")
    sockets = c.x(node, "ss -Huln").stdout
    expect(found[1] in sockets, f"{found[1]} is not among {sockets}")
    return found[1]


def published():
    dump = json.loads(c.x(2, f"lunarctl -o json lun dump {DEVICE}").stdout)
    return {p["hint"] for key in ("up_pages", "down_pages") for p in dump[key]}


def pool_comes_up_and_publishes_where_it_listens():
    c.format()
    start("auto")
    where = {listening(1, "agent"), listening(2, "agent"), listening(1, "coordinator")}
    wait_for("three addresses in the pages", lambda: published() == where, 5)
    return ", ".join(sorted(where))


def an_idle_node_is_answered_at_once():
    ms = ping_from_idle(4)
    expect(ms["median"] < 100, f"median {ms['median']} ms")
    return f"min {ms['min']:.1f} median {ms['median']:.1f} max {ms['max']:.1f} ms"


def a_flood_of_garbage_loses_no_answer():
    ip, port = listening(1, "coordinator").rsplit(":", 1)
    flood = c.spawn(2, f"end=$((SECONDS + 8)); while [ $SECONDS -lt $end ]; do echo x >/dev/udp/{ip}/{port}; done")
    ms = c.ctl(2, "rpc", "ping", "-c", 200, "-i", 10)["ms"]
    flood.wait(60)
    return f"median {ms['median']:.1f} p99 {ms['p99']:.1f} ms"


def with_the_network_cut_polling_answers():
    c.vm("net-cut", 1)
    ms = ping_from_idle(4)
    c.vm("net-heal", 1)
    expect(ms["max"] < 4000, f"max {ms['max']} ms")
    return f"min {ms['min']:.1f} median {ms['median']:.1f} max {ms['max']:.1f} ms"


def off_opens_no_socket_and_polling_answers():
    for n in (1, 2):
        c.x(n, "pkill -9 -x lunar-coordinat; pkill -9 -x lunar-agent; true")
    start("off")
    for n in (1, 2):
        sockets = c.x(n, "ss -Hulnp").stdout
        expect("lunar" not in sockets, f"a socket: {sockets}")
    wait_for("no address in the pages", lambda: published() == {"none"}, 5)
    ms = ping_from_idle(3)
    expect(ms["max"] < 4000, f"max {ms['max']} ms")
    return f"min {ms['min']:.1f} median {ms['median']:.1f} max {ms['max']:.1f} ms"


TESTS = [pool_comes_up_and_publishes_where_it_listens, an_idle_node_is_answered_at_once,
         a_flood_of_garbage_loses_no_answer, with_the_network_cut_polling_answers, off_opens_no_socket_and_polling_answers]

if __name__ == "__main__":
    run_main(c, TESTS)
