#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Two thousand agents against one coordinator on sectors of 512 bytes, fifty of two thousand on sectors of 4096: see
# tests/scale/run.py, which prints a line per promise, skips (77) without loop devices, sanlock or lvm, and cleans up.
set -u
cd "$(dirname "$0")/../scale" || exit 1
./run.py --nodes 2000 --sector 512 --idle 5 --rounds 4 || exit
./run.py --nodes 50 --sector 4096 --grants 0 --idle 3 --rounds 3 # nobody could confirm the grants of the other hosts
