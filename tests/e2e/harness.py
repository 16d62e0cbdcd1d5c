# SPDX-License-Identifier: Apache-2.0
"""The end-to-end tests' frame: a cluster of virtual machines with lunar's daemons on it, and TAP-like test lines.

Happy path: Cluster() boots, pushes the programs, starts sanlock, formats the LUN; start_agents() and
start_coordinator() bring the pool up; ctl() runs lunarctl and returns its JSON. Failure modes: a command that
fails raises Failed with its words, and so does expect() of what is not so; wait_for() polls a condition up to a deadline and
says what it waited for; whatever happens, close() takes the cluster down, after saving the nodes' logs.

A test file's main is run_main(): all its tests, in order, or those that the command line names. LUNAR_TEST_LONG=1 is for
what takes long; LUNAR_TEST_SLOW=1 runs the tests that count by N and W (test_fence, test_takeover) with sanlock's own
time-outs.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = ("lunar-agent", "lunar-guard", "lunar-coordinator", "lunarctl")
DEVICE = "/dev/vdb"
POOL = "demo"
LONG = os.environ.get("LUNAR_TEST_LONG") == "1"
SLOW = os.environ.get("LUNAR_TEST_SLOW") == "1"
N, W = (10, 60) if SLOW else (2, 10)  # sanlock's io_timeout and watchdog_fire_timeout: its own, or what tests can wait for
DEAD_S = 8 * N + W  # from the last renewal on: the watchdog has fired by then
JOIN_S = 5 * N + 50


class Failed(Exception):
    """A step that did not do what it should; the text says which and why."""


class Skip(Exception):
    """This machine lacks what the test needs."""


def expect(condition, words):
    if not condition:
        raise Failed(words)


def long_only():
    """At the head of a test that runs only with --long."""
    if not LONG:
        raise Skip("LUNAR_TEST_LONG=1 runs it")


def wait_for(what, condition, seconds, pause=0.1):
    """Polls until condition() is true and returns it; Failed, with the last error, after `seconds`."""
    end = time.monotonic() + seconds
    last = None
    while time.monotonic() < end:
        try:
            value = condition()
            if value:
                return value
        except Failed as error:
            last = error
        time.sleep(pause)
    raise Failed(f"waited {seconds} s for {what}" + (f"; last: {last}" if last else ""))


class Cluster:
    """A private cluster. Use as a context manager."""

    def __init__(self, name, nodes=3, lun_size="4G", build="build/release", net_cut=True, keep=False,
                 io_timeout=N, watchdog_timeout=W, logs=None, iscsi=None, sanlock=True, second_lun=None):
        # Unique, so that two runs on one machine do not take each other's nodes down; --keep wants a known one.
        self.name = name if keep else f"{name}-{os.getpid()}"
        self.nodes, self.build, self.keep = nodes, TOP / build, keep
        self.lun_size, self.net_cut, self.sanlock = lun_size, net_cut, sanlock
        self.io_timeout, self.watchdog_timeout = io_timeout, watchdog_timeout
        self.second_lun = second_lun
        self.iscsi, self.device = iscsi, "/dev/sda" if iscsi else DEVICE  # None, "fast" or "slow"
        self.logs = pathlib.Path(logs or f"/tmp/lunar-logs-{os.getuid()}/{self.name}")

    # --- the test bed ---
    def vm(self, *args, check=True, timeout=300, **kw):
        command = [str(TOP / "tools/vmcluster"), "--cluster", self.name, *map(str, args)]
        r = subprocess.run(command, capture_output=True, text=True, timeout=timeout, **kw)
        if r.returncode == 77:
            raise Skip(r.stderr.strip())
        if check and r.returncode:
            raise Failed(f"vmcluster {' '.join(map(str, args))}: {r.stderr.strip() or r.stdout.strip()}")
        return r

    def up(self):
        self.vm("down", check=False)
        args = ["up", "--nodes", self.nodes, "--lun-size", self.lun_size, "--no-sanlock", "--io-timeout",
                self.io_timeout, "--watchdog-timeout", self.watchdog_timeout]
        args += ["--net-cut"] if self.net_cut else []
        args += ["--second-lun", self.second_lun] if self.second_lun else []
        self.vm(*args, *(["--iscsi", self.iscsi] if self.iscsi else []), timeout=900)

    def close(self):
        self.save_logs()
        if not self.keep:
            self.vm("down", check=False)

    def __enter__(self):
        try:
            self.up()
            self.install(range(1, self.nodes + 1), sanlock=self.sanlock)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def save_logs(self):
        self.logs.mkdir(parents=True, exist_ok=True)
        for n in [*range(1, self.nodes + 1), *(["target"] if self.iscsi else [])]:
            try:
                r = self.x(n, "tail -n 2000 /run/*.log; echo; sanlock client log_dump | tail -n 300; dmesg | tail -n 100",
                           check=False, timeout=20)
                (self.logs / (f"node{n}.log" if n != "target" else "target.log")).write_text(r.stdout + r.stderr)
            except (Failed, subprocess.TimeoutExpired):
                pass

    def x(self, node, script, check=True, timeout=120):
        """Runs a bash script on a node."""
        r = self.vm("exec", node, "--timeout", timeout, "-n", "--", "bash", "-c", script, check=False,
                    timeout=timeout + 30)
        if check and r.returncode:
            raise Failed(f"node{node}: {script!r} exited with {r.returncode}: {(r.stderr + r.stdout).strip()[-800:]}")
        return r

    def spawn(self, node, script):
        """Runs a bash script on a node in the background; returns the Popen."""
        command = [str(TOP / "tools/vmcluster"), "--cluster", self.name, "exec", str(node), "--timeout", "1800", "-n",
                   "--", "bash", "-c", script]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    # --- lunar on it ---
    def install(self, nodes, sanlock=True):
        """Programs and sanlock; again after a node was cut."""
        for n in nodes:
            for program in PROGRAMS:
                self.vm("push", n, self.build / program, f"/usr/sbin/{program}")
            if sanlock:
                self.x(n, "node-sanlock start")

    def format(self, **options):
        extra = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in options.items())
        self.x(1, f"lunarctl lun format {self.device} --pool {POOL} --io-timeout {self.io_timeout} "
                  f"--watchdog-timeout {self.watchdog_timeout} {extra}")

    def start_agent(self, node):
        self.x(node, f"mkdir -p /run/lunar; setsid lunar-agent --device {self.device} >>/run/agent.log 2>&1 </dev/null &")

    def start_coordinator(self, node, env=""):
        self.x(node, f"{env} setsid lunar-coordinator --device {self.device} >>/run/coordinator.log 2>&1 </dev/null &")

    def hand_over(self, n):
        """Makes a coordinator that dies at its n-th effect the leader, with a plain one standing by (of nodes 1 and 2);
        returns its node. What it met is in /run/points there."""
        leader, _ = self.leader()
        victim = 3 - leader
        self.x(victim, "rm -f /run/points; pkill -9 -x lunar-coordinat; true")
        self.start_coordinator(victim, env=f"LUNAR_KILL_AT={n} LUNAR_KILL_TRACE=/run/points")
        listens = f"test -S /run/lunar/coordinator-{POOL}.sock"
        wait_for("the candidate", lambda: self.x(victim, listens, check=False).returncode == 0, 10)
        self.x(leader, "pkill -9 -x lunar-coordinat")
        # It leads when it has met its first effect, or died of it; only then may the plain one stand by.
        led = "test -s /run/points || ! pgrep -x lunar-coordinat >/dev/null"
        wait_for("the candidate to lead", lambda: self.x(victim, led, check=False).returncode == 0, 20)
        self.start_coordinator(leader)
        return victim

    def agent_status(self, node):
        return self.ctl(node, "node", "status")

    def wait_joined(self, nodes, seconds=JOIN_S):
        for n in nodes:
            wait_for(f"node{n} to join", lambda n=n: self.agent_status(n)["state"] == "joined", seconds)

    def ctl(self, node, *args, timeout=90):
        """lunarctl's JSON answer; Failed with its words otherwise."""
        words = " ".join("'" + str(a).replace("'", "'\\''") + "'" for a in args)
        r = self.x(node, f"lunarctl -o json {words}", check=False, timeout=timeout)
        if r.returncode:
            raise Failed(f"lunarctl {words}: {(r.stderr or r.stdout).strip()}")
        return json.loads(r.stdout) if r.stdout.strip() else None

    def refused(self, node, *args):
        """The words of a refusal; Failed if it was not refused."""
        try:
            self.ctl(node, *args)
        except Failed as error:
            return str(error)
        raise Failed(f"lunarctl {args} was not refused")

    def leader(self, ask=3):
        """(node number, term) of the coordinator that answers node `ask`."""
        s = self.ctl(ask, "status")
        return int(s["coordinator_node"].removeprefix("node")), s["term"]

    def wait_leader(self, ask=3, seconds=30):
        return wait_for("a coordinator", lambda: self.leader(ask), seconds)

    def pool_up(self, coordinators=(1, 2)):
        """Format, agents, coordinators: everything before the first volume."""
        self.format()
        for n in range(1, self.nodes + 1):
            self.start_agent(n)
        for n in coordinators:
            self.start_coordinator(n)
        self.wait_joined(range(1, self.nodes + 1))
        return self.wait_leader(ask=self.nodes)


def run_tests(tests):
    """Runs (name, function) pairs in order, prints TAP-like lines; stops at the first failure of a sequence."""
    failed = 0
    for i, (name, function) in enumerate(tests, 1):
        start = time.monotonic()
        try:
            note = function()
            print(f"ok {i} - {name} ({time.monotonic() - start:.1f} s{', ' + note if note else ''})", flush=True)
        except Skip as reason:
            print(f"ok {i} - {name} # SKIP {reason}", flush=True)
        except (Failed, subprocess.TimeoutExpired, AssertionError, KeyError) as error:
            failed += 1
            print(f"# {type(error).__name__}: {error}\nnot ok {i} - {name} ({time.monotonic() - start:.1f} s)", flush=True)
    return 1 if failed else 0


def run_main(cluster, tests, named=None, always=()):
    """A test file's main: `tests`, or those of `named` (`tests`, if not given) whose names are the arguments, and the
    `always` ones with them."""
    words, named = sys.argv[1:], named or tests
    unknown = set(words) - {t.__name__ for t in named}
    if unknown:
        print(f"# no such test: {' '.join(sorted(unknown))}", file=sys.stderr)
        sys.exit(2)
    chosen = [t for t in named if t in always or t.__name__ in words] if words else tests
    try:
        with cluster:
            sys.exit(run_tests([(t.__name__.replace("_", " "), t) for t in chosen]))
    except (Skip, Failed) as error:
        fatal(error)


def fatal(error):
    """For a test whose cluster could not be had."""
    if isinstance(error, Skip):
        print(f"# skipped: {error}")
        sys.exit(77)
    print(f"# {error}\nnot ok 1 - the cluster comes up")
    sys.exit(1)
