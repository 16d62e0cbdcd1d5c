#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Proves that the simulator can see: runs every seeded mutant until it is caught.

run_mutants.py BUILD-FOLDER [PATTERN]   (BUILD-FOLDER/mutants holds the programs that the target sim_mutants builds)

A mutant (mutants/*.mutant) is the production code with one rule broken, and names the number of seeds within which a breach
of an invariant must show. Happy path: "ok N - NAME: seed S breaches INVARIANT" for each. Failure modes: a mutant that no seed
within its bound catches, or that was not built, is "not ok" and the exit code 1: then the simulator has gone blind for
that rule, or the rule is kept twice and the mutant has become harmless.
"""
import concurrent.futures
import pathlib
import re
import subprocess
import sys

import mutate

BATCH = 10  # seeds per call: a mutant that is caught at once costs no more


def failure(output):
    seed = re.search(r"^seed (\d+) FAILED: (.*)$", output, re.M)
    breach = re.search(r"^VIOLATION ([\w-]+)", output, re.M)
    return f"seed {seed[1]} breaches {breach[1] if breach else 'an assertion (' + seed[2] + ')'}"


def hunt(build, path):
    keys, _ = mutate.parse(path)
    program = build / "mutants" / f"sim-{path.stem}"
    bound = int(keys["seeds"])
    options = keys.get("options", "").split()
    if not program.exists():
        return False, "was not built"
    for first in range(1, bound + 1, BATCH):
        run = subprocess.run([program, "-j", "1", "--from", str(first), "--seeds", str(min(BATCH, bound + 1 - first)),
                              *options], capture_output=True, text=True, errors="replace")
        if run.returncode == 1 and "FAILED" in run.stdout:
            return True, failure(run.stdout)
        if run.returncode != 0:
            return False, f"ended with {run.returncode}: {run.stderr[-300:]}"
    return False, f"was not caught within {bound} seeds ({keys['breaks']})"


def main(argv):
    build = pathlib.Path(argv[1])
    mutants = sorted(pathlib.Path(__file__).parent.glob("mutants/*.mutant"))
    mutants = [m for m in mutants if re.search(argv[2] if len(argv) > 2 else ".", m.stem)]
    missed = 0
    with concurrent.futures.ThreadPoolExecutor(2) as two:
        for n, (path, (caught, how)) in enumerate(zip(mutants, two.map(lambda m: hunt(build, m), mutants)), 1):
            missed += not caught
            print(f"{'ok' if caught else 'not ok'} {n} - {path.stem}: {how}", flush=True)
    print(f"{len(mutants) - missed} of {len(mutants)} mutants caught")
    return 1 if missed or not mutants else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
