#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Applies a seeded mutant to a source file: mutate.py MUTANT SOURCE-ROOT OUTPUT.

A mutant is a text file: lines "key: value" (rule, breaks, file, seeds, and for a mutant that only certain faults bring
out, options for the simulator; a value goes on in lines that begin with blanks), then hunks of the form

    <<<<
    lines as they stand in the file, exactly once
    ====
    lines that take their place
    >>>>

Happy path: OUTPUT is the changed file, with a #line so that messages name the original. Failure modes: a text that does
not occur exactly once (the code has moved on and the mutant must follow): exit 1 and which one. With no OUTPUT the value of
the key given instead of SOURCE-ROOT is printed.
"""
import pathlib
import sys


def parse(path):
    keys, hunks, part, key = {}, [], None, None
    for line in pathlib.Path(path).read_text().splitlines():
        if line == "<<<<" and part is None:
            hunks.append([[], []])
            part = 0
        elif line == "====" and part == 0:
            part = 1
        elif line == ">>>>" and part == 1:
            part = None
        elif part is not None:
            hunks[-1][part].append(line)
        elif line.strip() and not line.startswith("#"):
            if not line.startswith(" "):
                key, _, line = line.partition(":")
            keys[key] = (keys.get(key, "") + " " + line.strip()).strip()
    if part is not None or not hunks or not {"rule", "breaks", "file", "seeds"} <= keys.keys():
        sys.exit(f"{path}: not a mutant: it needs rule, breaks, file, seeds and at least one hunk")
    return keys, hunks


def mutate(path, root):
    keys, hunks = parse(path)
    source = pathlib.Path(root, keys["file"])
    text = source.read_text()
    for find, put in hunks:
        old, new = "\n".join(find) + "\n", "\n".join(put) + "\n"
        if text.count(old) != 1:
            sys.exit(f"{path}: its text occurs {text.count(old)} times in {keys['file']}, not once:\n{old}")
        text = text.replace(old, new)
    return f'#line 1 "{source}"\n{text}'


def main(argv):
    if len(argv) == 3:
        print(parse(argv[1])[0].get(argv[2], ""))
    elif len(argv) == 4:
        pathlib.Path(argv[3]).write_text(mutate(argv[1], argv[2]))
    else:
        sys.exit("usage: mutate.py MUTANT KEY | mutate.py MUTANT SOURCE-ROOT OUTPUT")


if __name__ == "__main__":
    main(sys.argv)
