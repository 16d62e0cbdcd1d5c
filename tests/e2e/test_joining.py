#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How a node gets into a pool: in whatever order its daemons start, after a power cut, and when the pool is full.

Three nodes and a pool with room for two. Happy path: daemons are started one by one, each test waits until everything has
come up by itself, and nothing is ever restarted. Failure modes: what an agent says while it cannot join is looked for in
its status, because that is where an operator looks.
"""

import json
import time

from harness import DEVICE, LONG, Cluster, expect, run_main, wait_for

c = Cluster("e2e-joining", build="build/dev", sanlock=False)

WDMD = "mkdir -p /etc/wdmd.d /run/wdmd; setsid wdmd -D -G root </dev/null >>/run/wdmd.log 2>&1 &"
SANLOCK = ("mkdir -p /etc/sanlock /run/sanlock; echo watchdog_fire_timeout = 10 >/etc/sanlock/sanlock.conf; "
           "setsid sanlock daemon -D -w 1 -h 0 -l 1 -U root -G root -o 2 -e $(lunarctl node identity --offline) "
           "</dev/null >>/run/sanlock.log 2>&1 &")
# The agent is started, and the times of start and join are told: two numbers.
START_AND_TIME = (
    "mkdir -p /run/lunar; read t0 _ </proc/uptime; setsid lunar-agent --device {device} >>/run/agent.log 2>&1 </dev/null & "
    "read t0 _ </proc/uptime; for i in $(seq 600); do lunarctl -o json node status 2>/dev/null | grep -q '\"joined\"' && break; "
    "sleep 0.1; done; read t1 _ </proc/uptime; echo $t0 $t1; lunarctl -o json node status")


def trouble(node):
    """What the agent says about why it has not joined."""
    s = c.agent_status(node)
    expect(s["state"] != "joined", f"node{node} has joined")
    return s["condition"]


def wait_trouble(node, words, seconds=30):
    return wait_for(f"node{node} to say '{words}'", lambda: words in trouble(node) and trouble(node), seconds)


# --- start order ---

def everything_comes_up_with_the_coordinator_first_and_sanlock_last():
    c.format(max_nodes=2)
    c.start_coordinator(1)
    wait_for("the coordinator to ask for the lease in vain",
             lambda: "lease_attempt_failed" in c.x(1, "cat /run/coordinator.log").stdout, 20)
    c.start_agent(1)
    wait_trouble(1, "the sanlock daemon does not answer")
    c.x(1, SANLOCK)
    wait_trouble(1, "wdmd does not answer")
    c.x(1, WDMD)
    c.wait_joined([1])
    c.wait_leader(ask=1)


def an_agent_before_wdmd_and_wdmd_before_sanlock_is_no_matter_either():
    c.start_agent(2)
    wait_trouble(2, "the sanlock daemon does not answer")
    c.x(2, WDMD)
    c.x(2, SANLOCK)
    c.wait_joined([2])
    c.start_coordinator(2)
    c.ctl(2, "volume", "create", "v", "--size", "64MiB")


# --- a full pool ---

def a_full_pool_says_so_and_takes_a_node_when_another_leaves():
    c.x(3, "node-sanlock start")
    c.start_agent(3)
    words = wait_trouble(3, "all 2 host ids of the pool are taken")
    expect("lunarctl node leave" in words, words)
    c.ctl(2, "node", "leave")
    start = time.monotonic()
    c.wait_joined([3])
    return f"{time.monotonic() - start:.1f} s after the leave"


def the_check_finds_a_node_well_that_has_joined():
    r = c.x(3, "lunarctl -o json node check")
    by_subject = {f["subject"]: f for f in json.loads(r.stdout)["findings"]}
    expect(json.loads(r.stdout)["worst"] == "WARN", r.stdout)
    expect([s for s, f in by_subject.items() if f["level"] != "OK"] == ["virtio disk (vdb)"], r.stdout)
    expect("armed" in by_subject["wdmd"]["value"], r.stdout)
    r = c.x(2, f"node-sanlock stop >/dev/null; lunarctl node check {DEVICE}", check=False)
    expect(r.returncode == 1 and "start it: systemctl start sanlock" in r.stdout and "wdmd does not answer" in r.stdout,
           f"{r.returncode}: {r.stdout}{r.stderr}")


# --- sanlock is restarted under a running agent ---

def boot_id(node):
    return c.x(node, "cat /proc/sys/kernel/random/boot_id").stdout.strip()


def a_clean_restart_of_sanlock_under_a_running_agent_is_a_loss_that_heals_itself():
    before, boot = c.agent_status(3), boot_id(3)
    device = c.ctl(3, "volume", "attach", "v")["device"]
    c.x(3, "node-sanlock stop", timeout=90)
    error = c.x(3, f"dd if={device} of=/dev/null bs=4096 count=1 iflag=direct 2>&1", check=False)
    expect(error.returncode != 0, "the volume was still readable")
    c.x(3, "node-sanlock start")
    start = time.monotonic()
    wait_for("node3 to join again", lambda: c.agent_status(3)["state"] == "joined", 60)
    after, seconds = c.agent_status(3), time.monotonic() - start
    expect(boot_id(3) == boot, "the watchdog reset the node")
    expect(after["generation"] > before["generation"] and not after["volumes"], f"{before} {after}")
    return f"joined again {seconds:.1f} s after sanlock's start"


# --- reboot ---

def state_in_list(node):
    """What the coordinator, which node 1 runs, holds of a node."""
    return next(n["state"] for n in c.ctl(1, "node", "list")["nodes"] if n["name"] == f"node{node}")


def is_watched(host_id):
    """The coordinator's beat says that this lease has stood still for 3N."""
    beat = json.loads(c.x(1, f"lunarctl -o json lun dump {DEVICE}").stdout)["beat"]
    return any(still["host_id"] == host_id for still in beat["still"])


def reboot(node, wait=None):
    """Power cut, boot, `wait` for something, the agent. Seconds from the agent's start to joined, and when that was."""
    before = c.agent_status(node)
    c.vm("cut", node)
    c.vm("start", node, timeout=600)
    c.install([node])
    if wait:
        wait(node, before["host_id"])
    out = c.x(node, START_AND_TIME.format(device=DEVICE)).stdout.split("\n", 1)
    t0, t1 = map(float, out[0].split())
    now = json.loads(out[1])
    expect(now["state"] == "joined", f"{now}")
    expect(now["host_id"] == before["host_id"] and now["generation"] > before["generation"], f"{before} {now}")
    return t1 - t0, t0


def told(seconds, up):
    return f"{seconds:.1f} s from the agent's start to joined (agent started {up:.0f} s after the kernel)"


def a_node_that_boots_at_once_is_back_within_15_s():
    seconds, up = reboot(3)
    expect(seconds <= 15, told(seconds, up))  # 3N of watching its own lease, 2N + 1 of sanlock
    return told(seconds, up)


def a_node_whose_lease_the_coordinator_has_watched_is_back_within_10_s():
    def watched(_, host_id):
        wait_for("the beat to list its lease", lambda: is_watched(host_id), 20)
    seconds, up = reboot(3, watched)
    expect(seconds <= 10, told(seconds, up))
    return told(seconds, up)


def a_node_whose_death_is_proved_is_back_within_10_s():
    def proved(node, _):
        wait_for(f"node{node} to be proved dead", lambda: state_in_list(node) == "DEAD", 60)
    seconds, up = reboot(3, proved)
    expect(seconds <= 10, told(seconds, up))
    return told(seconds, up)


TESTS = [everything_comes_up_with_the_coordinator_first_and_sanlock_last,
         an_agent_before_wdmd_and_wdmd_before_sanlock_is_no_matter_either,
         a_full_pool_says_so_and_takes_a_node_when_another_leaves, the_check_finds_a_node_well_that_has_joined,
         a_node_whose_lease_the_coordinator_has_watched_is_back_within_10_s]
if LONG:
    TESTS += [a_clean_restart_of_sanlock_under_a_running_agent_is_a_loss_that_heals_itself,
              a_node_that_boots_at_once_is_back_within_15_s, a_node_whose_death_is_proved_is_back_within_10_s]

if __name__ == "__main__":
    run_main(c, TESTS)
