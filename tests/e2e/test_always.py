# SPDX-License-Identifier: Apache-2.0
"""A coordinator always: three candidates on three nodes, killed, stopped, told to go, cut off their power.

Each test is a sentence; they run in order on one cluster. LUNAR_TEST_LONG=1 repeats kills and forced changes, lets candidates
flap for ten minutes instead of one, and runs what is left out by default because of the time that it takes.
"""

import json
import random
import statistics
import time

from harness import DEVICE, LONG, TOP, N, Cluster, Failed, expect, long_only, run_main, wait_for

NODES = (1, 2, 3)
PROCESS = "lunar-coordinat"  # as pkill knows it: 15 characters

c = Cluster("e2e-always", build="build/dev")


def leader():
    """(node, term), asked through whichever node answers."""
    return wait_for("a coordinator", lambda: c.leader(ask=random.choice(NODES)), 60)


def others(node):
    return [n for n in NODES if n != node]


def next_leader(node, term, seconds):
    """Until a coordinator of a later term answers; asked through a node that never led meanwhile."""
    start = time.monotonic()
    new = wait_for("the next coordinator", lambda: (lambda s: s if s[1] > term else None)(c.leader(ask=others(node)[0])), seconds,
                   pause=0.01)
    return new, time.monotonic() - start


def candidate_again(node):
    """Started, until it stands by: the next fault must find two of them."""
    c.start_coordinator(node)
    wait_for(f"node{node} to stand by", lambda: c.ctl(node, "rpc", "top", "--once", "--coordinator")["role"] == "standby", 30)


def is_gone(node):
    return c.x(node, f"pgrep -x {PROCESS}", check=False).returncode == 1


def pool_comes_up_with_three_candidates():
    node, term = c.pool_up(coordinators=NODES)
    return f"node{node} leads, term {term}"


def a_killed_coordinator_is_replaced_within_2_s_in_the_median():
    took = []
    for _ in range(10 if LONG else 3):
        node, term = leader()
        c.x(node, f"pkill -9 -x {PROCESS}")
        took.append(next_leader(node, term, 30)[1])
        candidate_again(node)
    # Emulated machines, and a busy host: one of ten may be late by the scheduler's doing.
    expect(statistics.median(took) <= 2 and max(took) <= 5, f"answered after {took}")
    return f"median {statistics.median(took):.2f} s of " + ", ".join(f"{t:.2f}" for t in sorted(took))


def the_beat_stands_on_the_lun():
    node, term = leader()
    first = json.loads(c.x(node, f"lunarctl -o json lun dump {DEVICE}").stdout)["beat"]
    expect((first["term"], first["phase"], first["node"]) == (term, "leading", f"node{node}"), f"{first}")
    wait_for("the next beat", lambda: json.loads(c.x(node, f"lunarctl -o json lun dump {DEVICE}").stdout)["beat"]["count"] >
             first["count"] + 1, 10)


def a_stopped_coordinator_is_forced_out_within_14_s():
    took = []
    for _ in range(5 if LONG else 1):
        node, term = leader()
        c.x(node, f"pkill -STOP -x {PROCESS}")
        _, seconds = next_leader(node, term, 60)
        took.append(seconds)
        expect(is_gone(node), "the stopped one is still there under its successor")
        candidate_again(node)
    # 3 beats, 5N, a second; and 2 s for the attempt, the takeover and the answer.
    expect(max(took) <= 3 + 5 * N + 1 + 2, f"answered after {took}")
    return "answered after " + ", ".join(f"{t:.1f}" for t in took) + " s"


def one_that_goes_on_after_the_request_is_killed_all_the_same():
    long_only()
    node, term = leader()
    c.x(node, f"pkill -STOP -x {PROCESS}")
    create = c.spawn(others(node)[0], "lunarctl volume create thawed --size 64MiB")
    silent = f"grep -h 'leader_silent term={term} ' /run/coordinator.log"
    wait_for("a standby to ask", lambda: any(c.x(n, silent, check=False).stdout for n in others(node)), 20)
    c.x(node, f"pkill -CONT -x {PROCESS}", check=False)
    next_leader(node, term, 60)
    expect(is_gone(node), "the one that went on is still there under its successor")
    create.communicate(timeout=90)
    expect(create.returncode == 0, "the request was lost")
    names = [v["name"] for v in c.ctl(1, "volume", "list")["volumes"]]
    expect(names == ["thawed"], f"{names}")
    c.ctl(1, "volume", "delete", "thawed")
    c.start_coordinator(node)


STOPPING_LVM = """#!/bin/sh
case "$*" in *lvcreate*) kill -STOP $$ ;; esac
exec /usr/sbin/lvm "$@"
"""


def safety_1_nobody_leads_before_the_lvm_of_the_one_forced_out_is_gone():
    node, term = leader()
    c.x(node, f"pkill -9 -x {PROCESS}; printf %s '{STOPPING_LVM}' >/run/stopping-lvm; chmod +x /run/stopping-lvm")
    (node, term), _ = next_leader(node, term, 30)  # another leads; its successor shall be the prepared one
    prepared = [n for n in NODES if is_gone(n)][0]
    c.start_coordinator(prepared, env="LUNAR_LVM_PATH=/run/stopping-lvm")
    for n in others(prepared):
        c.x(n, f"pkill -9 -x {PROCESS}", check=False)
    wait_for("its lead", lambda: c.leader(ask=others(prepared)[0])[0] == prepared, 30)
    for n in others(prepared):
        c.start_coordinator(n)
    create = c.spawn(others(prepared)[0], "lunarctl volume create orphan --size 64MiB")
    stopped = "ps -eo stat,args | grep '^T.*stopping-lvm'"
    wait_for("lvm to be stopped in its commit", lambda: c.x(prepared, stopped, check=False).stdout, 30)
    _, term = c.leader(ask=others(prepared)[0])
    c.x(prepared, f"pkill -STOP -x {PROCESS}")
    next_leader(prepared, term, 60)
    left = c.x(prepared, "ps -eo stat,args | grep '[s]topping-lvm'", check=False).stdout
    expect(left == "" and is_gone(prepared), f"still there under the next coordinator: {left}")
    create.communicate(timeout=90)
    expect(create.returncode == 0, "the request was lost with its coordinator")
    c.ctl(1, "volume", "delete", "orphan")
    c.start_coordinator(prepared)


# --- flapping ---

SUPERVISE = f"""while [ ! -e /run/flap-stop ]; do
lunar-coordinator --device {DEVICE} >>/run/coordinator.log 2>&1 </dev/null; sleep 0.2; done"""


def flap(seconds):
    """Kills, stops and terminates candidates; never two stopped at a time. Returns how often it did what."""
    done, stopped = {"9": 0, "STOP": 0, "TERM": 0}, None
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        node = random.choice(NODES) if random.random() < 0.5 else leader_or_any()
        what = random.choice(list(done))
        if what == "STOP" and stopped:
            c.x(stopped, f"pkill -CONT -x {PROCESS}", check=False)
        c.x(node, f"pkill -{what} -x {PROCESS}", check=False)
        stopped = node if what == "STOP" else stopped
        done[what] += 1
        time.sleep(random.uniform(2, 6))
    for n in NODES:
        c.x(n, f"pkill -CONT -x {PROCESS}", check=False)
    return done


def leader_or_any():
    try:
        return c.leader(ask=random.choice(NODES))[0]
    except Failed:
        return random.choice(NODES)


def terms_led(node):
    out = c.x(node, "grep -oh 'leading term=[0-9]*' /run/coordinator.log", check=False).stdout
    return [int(line.rpartition("=")[2]) for line in out.split()[1::2]]


def candidates_flap_under_load_and_nothing_is_lost_or_doubled():
    for n in NODES:
        c.x(n, f"pkill -9 -x {PROCESS}; rm -f /run/flap-stop; : >/run/coordinator.log; "
               f"setsid sh -c '{SUPERVISE}' >/dev/null 2>&1 </dev/null &", check=False)
        c.vm("push", n, TOP / "tests/e2e/flap_load.py", "/run/flap_load.py")
    leader()
    for n in NODES:  # detached: ten minutes are longer than a command in a node may take
        c.x(n, f"setsid python3 /run/flap_load.py n{n} /run/flap-stop-load >/run/flap.json 2>/run/flap.err </dev/null &")
    done = flap(600 if LONG else 60)
    for n in NODES:
        c.x(n, "touch /run/flap-stop-load")
    results = {n: json.loads(wait_for(f"the load of node{n} to end", lambda n=n: c.x(n, "cat /run/flap.json").stdout, 300))
               for n in NODES}
    wrong = {n: r["wrong"] for n, r in results.items() if r["wrong"]}
    expect(not wrong, f"{wrong}")
    expect(all(r["cycles"] > 0 for r in results.values()), f"{results}")
    led = [terms_led(n) for n in NODES]
    expect(all(t == sorted(set(t)) for t in led), f"a node's terms do not rise: {led}")
    every = sorted(t for of_node in led for t in of_node)
    expect(len(every) == len(set(every)), f"one term was led twice: {every}")
    expect(leader()[1] == max(every), f"{leader()} does not lead the highest of {every}")
    for n in NODES:
        c.x(n, f"touch /run/flap-stop; rm -f /run/flap-stop-load")
    v = c.ctl(1, "verify")
    expect(v["clean"], f"{v}")
    s = c.ctl(1, "status")
    expect(s["volumes"] == 0 and s["attachments"] == 0 and s["vg_free"] == s["vg_size"], f"{s}")
    cycles = sum(r["cycles"] for r in results.values())
    return (f"kill -9 {done['9']}, STOP {done['STOP']}, TERM {done['TERM']}; {len(every)} terms; {cycles} cycles, "
            f"{sum(r['repeats'] for r in results.values())} repeats, longest {max(r['longest_s'] for r in results.values())} s")


def verify_is_clean_with_volumes_attached():
    for n in NODES:
        c.ctl(n, "volume", "create", f"v{n}", "--size", "64MiB", *(["--thick"] if n == 1 else []))
        c.ctl(n, "volume", "attach", f"v{n}")
    v = c.ctl(1, "verify")
    expect(v == {"clean": True, "findings": []}, f"{v}")


STRAY = "12345678-9abc-4def-8123-456789abcdef"


def verify_names_what_stands_on_a_node_and_nobody_knows_of():
    pool = c.ctl(1, "status")["pool_id"].replace("-", "")[:16]
    name = "lunar-v0123456789abcdef-l0"
    c.x(2, f"dmsetup create --noudevsync {name} -u LUNAR-L-{pool}-{STRAY}-{name} --table '0 8192 error'")
    c.x(2, f"TMPDIR=/run/lunar/attach-demo/{STRAY} setsid qemu-storage-daemon --chardev socket,id=q,path=/run/q.sock,server=on,wait=off "
           "--monitor chardev=q >/dev/null 2>&1 </dev/null &")
    r = c.x(1, "lunarctl -o json verify", check=False)
    found = json.loads(r.stdout)
    c.x(2, f"dmsetup remove --noudevsync {name}; pkill -f /run/q.sock")
    expect(r.returncode == 1 and not found["clean"], f"{r.returncode} {found}")
    kinds = sorted((f["kind"], f["node"]) for f in found["findings"])
    expect(kinds == [("daemon-without-report", "node2"), ("map-without-report", "node2")], f"{found}")


def verify_names_a_node_that_does_not_answer():
    long_only()
    victim = others(leader()[0])[0]
    asker = others(victim)[0]
    c.x(victim, "pkill -STOP -x lunar-agent")
    r = c.x(asker, "lunarctl verify", check=False)
    c.x(victim, "pkill -CONT -x lunar-agent")
    expect(r.returncode == 1 and f"not-inspected: node node{victim}" in r.stdout, f"{r.returncode} {r.stdout}")
    wait_for("verify to be clean again", lambda: c.ctl(asker, "verify")["clean"], 60)


def verify_is_clean_when_the_volumes_are_gone():
    for n in NODES:
        c.ctl(n, "volume", "detach", f"v{n}")
        c.ctl(n, "volume", "delete", f"v{n}")
    v = c.ctl(2, "verify")
    expect(v["clean"], f"{v}")


def a_power_cut_of_the_leader_takes_sanlocks_bound_and_2_s():
    long_only()
    node, term = leader()
    c.vm("cut", node)
    _, took = next_leader(node, term, 90)
    # FACTS: an acquire after the owner's death takes 26 to 40 s at N=2, W=10.
    expect(took <= 40 + 2, f"answered after {took:.1f} s")
    return f"answered after {took:.1f} s"


TESTS = [pool_comes_up_with_three_candidates, a_killed_coordinator_is_replaced_within_2_s_in_the_median, the_beat_stands_on_the_lun,
         a_stopped_coordinator_is_forced_out_within_14_s, one_that_goes_on_after_the_request_is_killed_all_the_same,
         safety_1_nobody_leads_before_the_lvm_of_the_one_forced_out_is_gone,
         verify_is_clean_with_volumes_attached, verify_names_what_stands_on_a_node_and_nobody_knows_of,
         verify_names_a_node_that_does_not_answer, verify_is_clean_when_the_volumes_are_gone,
         candidates_flap_under_load_and_nothing_is_lost_or_doubled, a_power_cut_of_the_leader_takes_sanlocks_bound_and_2_s]

if __name__ == "__main__":
    run_main(c, TESTS)
