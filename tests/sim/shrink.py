#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes a failing run of the simulator small.

shrink.py [--program PATH] [--seed S] [--reseed N] [--keep NAME] [OPTION...]

A run fails by an invariant or an assertion; a smaller one counts if it fails by the same. Each kind of fault has a stream of
randomness of its own, so leaving one out changes the others' draws in nothing. Tried over and over until nothing helps:
without one kind of fault, fewer nodes, fewer requests, a shorter time of faults. Without --seed the first seed that fails is
taken (of 2,000). With --reseed N each step may go over to one of N other seeds: mostly far smaller, but perhaps another story
with the same end. OPTIONs (--mask, --nodes, ...) go to the simulator.

Happy path: the options of the smaller run, then its trace's tail without the page writes, exit 0. --keep NAME also
writes both to regressions/NAME, with a line that asks for the story. Failure modes: nothing fails: exit 1.
"""
import argparse
import pathlib
import re
import subprocess
import sys

TAIL = 80
FIELDS = ("seed", "nodes", "requests", "chaos-ms", "mask")
FIRST_SEEDS, BATCH = 2000, 20
# Lines of numbers that say nothing went wrong: writes, where they land, that they ended well.
PLAIN = re.compile(r"^\S+ +\S+ +(write \d|lands \d|(write|read) ended \d+ \d+ 0$)")


def run(program, options):
    return subprocess.run([program, "-j", "1", *options], capture_output=True, text=True, errors="replace")


def failure(result):
    """By what it failed; None: it did not."""
    if result.returncode == 0:
        return None
    breach = re.search(r"^VIOLATION ([\w-]+)", result.stdout, re.M)
    assertion = re.search(r"Assertion `(.*)' failed", result.stderr)
    how = re.search(r"FAILED: (.*)$", result.stdout, re.M)
    if not how:
        sys.exit(f"shrink: the simulator ended with {result.returncode}: {result.stderr[-300:]}")
    return breach[1] if breach else f"assertion {assertion[1]}" if assertion else how[1]


def as_options(case):
    return [word for field in FIELDS for word in (f"--{field}", hex(case[field]) if field == "mask" else str(case[field]))]


def describe(case):
    return f"{case['nodes']} nodes, {case['requests']} requests, {case['chaos-ms']} ms, {case['mask'].bit_count()} kinds of faults"


class Shrinker:
    def __init__(self, program, case, how, reseed):
        self.program, self.case, self.how, self.reseed, self.runs = program, case, how, reseed, 0

    def attempt(self, **change):
        """Takes the change over if the run fails as before."""
        for seed in [self.case["seed"], *range(1, self.reseed + 1)]:
            candidate = {**self.case, **{k.replace("_", "-"): v for k, v in change.items()}, "seed": seed}
            self.runs += 1
            if failure(run(self.program, as_options(candidate))) == self.how:
                self.case = candidate
                return True
        return False

    def kinds(self):
        for bit in range(self.case["mask"].bit_length()):
            if self.case["mask"] >> bit & 1:
                self.attempt(mask=self.case["mask"] & ~(1 << bit))

    def least(self, field, minimum):
        """Binary search: a run is not monotonous in it, so what is found need not be the least of all."""
        low = minimum
        while low < self.case[field]:
            middle = (low + self.case[field]) // 2
            if not self.attempt(**{field: middle}):
                low = middle + 1

    def shrink(self):
        before = None
        while before != self.case:
            before = dict(self.case)
            self.kinds()
            self.least("nodes", 2)
            self.least("requests", 1)
            self.least("chaos-ms", 1)
            print(f"{describe(self.case)} ({self.runs} runs)", file=sys.stderr)


def choice(program, options):
    words = run(program, [*options, "--print-choice"]).stdout.split()
    return {key[2:]: int(value, 0) for key, value in zip(words[::2], words[1::2])}


def first_seed(program, options):
    for first in range(1, FIRST_SEEDS, BATCH):
        found = re.search(r"^seed (\d+) FAILED", run(program, ["--from", str(first), "--seeds", str(BATCH), *options]).stdout, re.M)
        if found:
            return int(found[1])
    sys.exit(f"shrink: none of the seeds 1 to {FIRST_SEEDS} fails")


def tail(program, case):
    result = run(program, [*as_options(case), "--trace"])
    lines = [line for line in result.stdout.splitlines() if not PLAIN.match(line)]
    end = next((i for i, line in enumerate(lines) if re.match(r"seed \d+ FAILED", line)), len(lines))
    return lines[max(0, end - TAIL):end] + result.stderr.splitlines()[-1:]


def keep(name, case, how, trace):
    path = pathlib.Path(__file__).parent / "regressions" / name
    if path.exists():
        sys.exit(f"shrink: {path} is there already")
    story = f"(What happened, and what was changed. It failed by: {how}.)"
    path.write_text("\n".join([" ".join(as_options(case)), story, "---", *trace]) + "\n")
    print(f"written: {path}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS)
    parser.add_argument("--program", default="build/dev/sim")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--reseed", type=int, default=0)
    parser.add_argument("--keep")
    args, options = parser.parse_known_args()
    seed = args.seed or first_seed(args.program, options)
    case = choice(args.program, [*options, "--seed", str(seed)])
    how = failure(run(args.program, as_options(case)))
    if not how:
        sys.exit(f"shrink: seed {seed} does not fail")
    print(f"seed {seed} fails by {how}: {describe(case)}", file=sys.stderr)
    shrinker = Shrinker(args.program, case, how, args.reseed)
    shrinker.shrink()
    trace = tail(args.program, shrinker.case)
    print("tools/sim", *as_options(shrinker.case))
    print(*trace, sep="\n")
    if args.keep:
        keep(args.keep, shrinker.case, how, trace)


if __name__ == "__main__":
    main()
