# SPDX-License-Identifier: Apache-2.0
"""A cluster's life: up, start, cut, down, and what status tells.

Happy path of up: build what is missing, record the cluster, start the switch and all QEMUs, wait
until every console says NODE-READY (commands are served), SANLOCK-READY and, with --iscsi,
LUN-READY (TARGET-READY on the target), prove it with one command per node. start does the same for
one node.

Failure modes: a node that does not get there in time, whose QEMU ends or whose sanlock fails ends
`up` with the tail of its console; so does Ctrl-C; then nothing of the cluster is left running. For
start only that node is powered off again. A leftover cluster without a living process is replaced
silently, a living one is refused.
"""
import os
import secrets
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from . import Failure, accel, base, initrd, qemu, remote, switch
from .cluster import Cluster, Process

BOOT_S = 240
CONSOLE_TAIL_BYTES = 2500


def prepare(rebuild=False):
    """Everything that is built and cached. Returns what a cluster's record needs of it."""
    folder = base.ensure(rebuild)
    shared = initrd.ensure(folder)
    return {"base": folder, "root": f"{folder}/root.img", "initrd": shared,
            "accel": accel.choose(folder, shared)}


def parse_size(text):
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
    try:
        unit = units.get(text[-1:].upper())
        size = int(text[:-1]) * unit if unit else int(text)
    except ValueError as e:
        raise Failure(f"size {text!r}: a number with K, M, G or T") from e
    if size <= 0 or size % 512:
        raise Failure(f"size {text!r}: a positive multiple of 512 bytes")
    return size


def make_lun(cluster, path, size):
    """The raw file behind the LUN: the caller's own, or a sparse one that `down` removes."""
    own = path is None
    path = os.path.abspath(path or os.path.join(base.cache_dir(),
                                                f"lun-{os.geteuid()}-{cluster.name}.raw"))
    if own or not os.path.exists(path):
        with open(path, "wb") as f:
            f.truncate(size)
    return {"lun": path, "own_lun": path if own else None}


def make_second_lun(cluster, size):
    """Nothing without a size; `down` removes it."""
    if not size:
        return {}
    return {"lun2": make_lun(Cluster(f"{cluster.name}.2"), None, parse_size(size))["lun"]}


def start_switch(cluster, network):
    program = os.path.abspath(switch.__file__)
    folder, log_path = cluster.path(network), cluster.path(f"{network}.log")
    with open(log_path, "ab") as log:
        child = subprocess.Popen([sys.executable, "-I", "-B", program, folder,
                                  str(len(cluster.machines()))], stdin=subprocess.DEVNULL,
                                 stdout=log, stderr=log, start_new_session=True)
    cluster.switch(network).save(child.pid)
    while not os.path.exists(f"{folder}/ctl"):
        if child.poll() is not None:
            raise Failure(f"the switch did not start: see {log_path}")
        time.sleep(0.01)


def console(node):
    """What the node printed since its last start."""
    try:
        with open(node.path("console.log"), "rb") as f:
            f.seek(node.process.record.get("console_offset", 0))
            return f.read()
    except OSError:
        return b""


def boot_failure(node, why):
    tail = console(node)[-CONSOLE_TAIL_BYTES:].decode(errors="replace").replace("\r", "")
    return Failure(f"{node.name}: {why}; end of its console:\n{tail}")


def wanted_markers(node):
    """What the console says of a machine that is complete."""
    words = [b"NODE-READY"]
    if node.is_target:
        return [*words, b"TARGET-READY"]
    if node.cluster.config["sanlock"]:
        words.append(b"SANLOCK-READY")
    if node.cluster.config["iscsi"]:
        words.append(b"LUN-READY")
    return words


def wait_for_boot(node):
    """Returns the seconds after which the node served commands, and was complete."""
    began, served = time.monotonic(), None
    wanted = wanted_markers(node)
    while True:
        text, passed = console(node), time.monotonic() - began
        if served is None and b"NODE-READY" in text:
            served = passed
        if all(word in text for word in wanted):
            return served, passed
        if any(w + b"-FAILED" in text for w in (b"SANLOCK", b"PID1", b"LUN", b"TARGET")):
            raise boot_failure(node, "boot failed")
        if not node.process.alive():
            raise boot_failure(node, "QEMU ended during the boot")
        if passed > BOOT_S:
            raise boot_failure(node, f"not up after {BOOT_S} s")
        time.sleep(0.1)


def prove(node):
    """The markers are words on a console; this is a command that really runs."""
    asked = node.cluster.config["sanlock"] and not node.is_target
    argv = ["node-sanlock", "status"] if asked else ["true"]
    code, text = remote.output(node, argv)
    if code != 0:
        raise boot_failure(node, f"{argv[0]} exits {code}: {text.strip()}")


def boot(node, child):
    """From a fresh QEMU to a proven node; prints its time."""
    qemu.attach(node, child)
    served, complete = wait_for_boot(node)
    prove(node)
    rest = f", complete {complete:.1f} s" if len(wanted_markers(node)) > 1 else ""
    print(f"{node.name}: commands after {served:.1f} s{rest}", flush=True)


def boot_all(nodes):
    with ThreadPoolExecutor(len(nodes)) as pool:
        try:
            waiting = [pool.submit(boot, node, qemu.spawn(node)) for node in nodes]
            for future in waiting:
                future.result()
        except BaseException:
            for node in nodes:      # also ends the other threads' waiting
                node.process.kill()
            raise


def refuse_or_replace(cluster):
    living = [n for n in cluster.machines() if n.process.alive()]
    if living:
        raise Failure(f"cluster {cluster.name!r} is up; tools/vmcluster down first")
    cluster.destroy()


def up(cluster, options):
    began = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _: sys.exit(128 + n))
    built = prepare()
    with cluster.locked():
        refuse_or_replace(cluster)
        config = {"name": cluster.name, "token": secrets.token_hex(16), "began": time.time(),
                  **built, **make_lun(cluster, options.lun, parse_size(options.lun_size)),
                  **make_second_lun(cluster, options.second_lun),
                  "nodes": options.nodes, "mem_mb": options.mem, "sanlock": options.sanlock,
                  "iscsi": options.iscsi,
                  "io_timeout_s": options.io_timeout,
                  "watchdog_timeout_s": options.watchdog_timeout}
        try:
            cluster.create(config)
            for network in cluster.networks():
                start_switch(cluster, network)
            if options.net_cut:
                net(cluster, "net", "cut", cluster.nodes())
            boot_all(cluster.machines())
        except BaseException:
            cluster.destroy()
            raise
    print(f"cluster {cluster.name}: {options.nodes} nodes up in "
          f"{time.monotonic() - began:.1f} s ({config['accel']})")


def down(cluster):
    with cluster.locked():
        cluster.destroy()


def start(node):
    with node.cluster.locked():
        node.process = Process(node.path("process.json"))
        node.need("off")
        child = qemu.spawn(node)
        try:
            boot(node, child)
        except BaseException:
            node.process.kill()
            raise


def cut(node):
    """Power off as a socket pulled from the wall; harmless when the node is off already."""
    node.process.kill()
    if not node.marked("cut"):
        node.mark("cut", "cut")


def net(cluster, network, word, nodes):
    """Cuts machines off a network ("net": the nodes', "san": the storage's), or heals them."""
    if network not in cluster.networks():
        raise Failure(f"cluster {cluster.name!r} has no storage network (up --iscsi)")
    answer = switch.ask(cluster.path(network), " ".join([word, *(str(n.number) for n in nodes)]))
    if answer is None:
        raise Failure("the switch of this cluster does not answer")
    return answer


def cable_state(node, cut_nodes):
    if cut_nodes is None:
        return "dead"
    return "cut" if node.number in cut_nodes else "ok"


def describe(node, cut):
    """A row of status; `cut` has the cut machines of each network, None where its switch is dead."""
    state = node.state()
    row = {"node": node.name, "state": state, "pid": None, "uptime_s": None, "lun": None,
           "net": None, "off_reason": None}
    if state == "off":
        row["off_reason"] = node.marked("cut") or "reset or shut down by itself"
    else:
        row.update(pid=node.process.pid, lun=node.lun_state(),
                   uptime_s=round(time.time() - node.process.record["began"], 1))
        row.update({network: cable_state(node, numbers) for network, numbers in cut.items()})
    return row


def status(cluster):
    if not cluster.exists():
        return {"cluster": cluster.name, "up": False, "nodes": []}
    cut = {network: switch.ask(cluster.path(network), "state") for network in cluster.networks()}
    c = cluster.config
    return {"cluster": cluster.name, "up": True, "accel": c["accel"], "dir": cluster.dir,
            "lun": c["lun"], "io_timeout_s": c["io_timeout_s"],
            "watchdog_timeout_s": c["watchdog_timeout_s"], "sanlock": c["sanlock"],
            "iscsi": c["iscsi"],
            "switch_pid": cluster.switch().pid if cluster.switch().alive() else None,
            "nodes": [describe(n, cut) for n in cluster.machines()]}
