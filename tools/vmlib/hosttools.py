# SPDX-License-Identifier: Apache-2.0
"""Host programs that building and running the test bed needs.

Happy path: all are there. Failure modes: what is missing is installed when we are root on a
Debian-like machine; else one Failure names every missing program and the one apt command.
"""
import os
import platform
import shutil
import subprocess

from . import LACKING, Failure

# program -> Debian package
NEEDED = {
    "apt-get": "apt", "dpkg-deb": "dpkg", "tar": "tar", "xz": "xz-utils", "zstd": "zstd",
    "mke2fs": "e2fsprogs", "cc": "gcc libc6-dev",
}
NEEDED_UNPRIVILEGED = {"fakeroot": "fakeroot"}


def search_path():
    return os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"


def missing_packages():
    needed = dict(NEEDED)
    if os.geteuid() != 0:
        needed.update(NEEDED_UNPRIVILEGED)
    return [package for program, package in sorted(needed.items())
            if not shutil.which(program, path=search_path())]


def ensure():
    """Returns with every host program in place and sbin on the PATH, or raises Failure."""
    os.environ["PATH"] = search_path()
    if platform.machine() != "x86_64":
        raise Failure(f"the test bed needs an x86_64 machine, not {platform.machine()}", LACKING)
    missing = " ".join(missing_packages())
    if not missing:
        return
    command = f"apt-get install -y --no-install-recommends {missing}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Failure(f"missing host packages; run: sudo {command}", LACKING)
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    for step in ("apt-get -qq update", command + " -qq"):
        subprocess.run(step.split(), env=env, stdout=subprocess.DEVNULL, check=False)
    if missing_packages():
        raise Failure(f"could not install host packages; run: {command}", LACKING)
