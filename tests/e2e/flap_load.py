# SPDX-License-Identifier: Apache-2.0
"""Creates, attaches, writes, detaches and deletes volumes over and over through this node's agent, while coordinators come
and go. Runs on a node: flap_load.py PREFIX STOP-FILE; ends after the cycle under way once the file is there, and prints one line
of JSON: cycles, repeats of requests whose outcome was unknown or that were told to wait, the longest request, and what was wrong.

Happy path: each request is done at the first or at a later attempt, and each answer means what it says. Failure modes: a
request that is refused for good, one that is not done within LIMIT_S, a volume that is there twice, bytes that do not come back.
"""

import json
import os
import subprocess
import sys
import time

LIMIT_S = 150
AGAIN = ("BUSY", "TIMEOUT", "INDETERMINATE", "NOT_JOINED", "STALE", "METADATA", "ECONN", "lost")

prefix, stop_file = sys.argv[1:3]
result = {"cycles": 0, "repeats": 0, "longest_s": 0.0, "wrong": []}


def run(*args):
    r = subprocess.run(["lunarctl", "-o", "json", "--timeout", "10", *args], capture_output=True, text=True)
    return r.returncode, r.stdout, (r.stderr or r.stdout).strip()


def until_done(*args, done_if=()):
    """The answer; None after what counts as done without one."""
    start = time.monotonic()
    words = ""
    while time.monotonic() - start < LIMIT_S:
        code, out, words = run(*args)
        took = time.monotonic() - start
        if code == 0 or any(d in words for d in done_if):
            result["longest_s"] = max(result["longest_s"], round(took, 1))
            return json.loads(out) if code == 0 and out.strip() else None
        if code != 3 and not any(a in words for a in AGAIN):
            raise RuntimeError(f"{args}: {words}")
        result["repeats"] += 1
        time.sleep(0.3)
    raise RuntimeError(f"{args}: not done within {LIMIT_S} s, the last words were {words}")


def expect(condition, words):
    if not condition:
        raise RuntimeError(words)


def write_and_read(device, number):
    record = f"{prefix} {number} ".encode() * 512
    record = record[:4096].ljust(4096, b".")
    subprocess.run(["dd", f"of={device}", "bs=4096", "count=1", "oflag=direct", "conv=notrunc", "status=none"], input=record,
                   check=True)
    back = subprocess.run(["dd", f"if={device}", "bs=4096", "count=1", "iflag=direct", "status=none"], capture_output=True,
                          check=True).stdout
    expect(back == record, f"{device}: other bytes came back")


def cycle(number):
    name = f"{prefix}-{number}"
    made = until_done("volume", "create", name, "--size", "64MiB")
    listed = [v for v in until_done("volume", "list")["volumes"] if v["name"] == name]
    expect(len(listed) == 1 and listed[0]["volume_id"] == made["volume_id"], f"{name} is there {len(listed)} times")
    device = until_done("volume", "attach", name)["device"]
    write_and_read(device, number)
    until_done("volume", "detach", name, done_if=("NOT_FOUND",))
    expect(not os.path.exists(device), f"{device} is there after the detach")
    until_done("volume", "delete", name, done_if=("NOT_FOUND",))


try:
    while not os.path.exists(stop_file):
        cycle(result["cycles"])
        result["cycles"] += 1
except (RuntimeError, subprocess.CalledProcessError, KeyError, TypeError) as error:
    result["wrong"].append(str(error))
print(json.dumps(result))
