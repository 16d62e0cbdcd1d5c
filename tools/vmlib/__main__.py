# SPDX-License-Identifier: Apache-2.0
"""Run as `python3 tools/vmlib ARGUMENTS`, by tools/vmcluster.

Happy path: the folder above takes this folder's place on the module path, then cli decides.
Failure modes: those of cli.main, whose exit code is passed on.
"""
import os
import sys

sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from vmlib import cli  # noqa: E402  (needs the path above)

sys.exit(cli.main(sys.argv[1:]))
