# SPDX-License-Identifier: Apache-2.0
"""Builds the package-dependent half of the test bed: QEMU, the kernel and the nodes' root image.

Happy path: the content key (this file: package lists and recipe) names a directory in the cache;
when it is absent the packages of Debian 13 are fetched from the mirror that this machine's own apt
uses, unpacked without dpkg and without root, and made into

    base-KEY/qemu/      a tree from which QEMU runs through its own dynamic loader
    base-KEY/vmlinux    the uncompressed kernel (a node boots it without unpacking it under TCG)
    base-KEY/root.img   read-only ext4 of all nodes (each puts a tmpfs over it)
    base-KEY/early/     busybox and the modules that the initramfs needs, modules.list in order

Failure modes: everything is built in a temporary directory and renamed when complete, so a killed
build leaves only rubbish that the next one removes; a lock makes concurrent builds wait and find
the work done. No Debian mirror in apt's configuration, a failing apt or a QEMU that is too old
are reported with the tail of the log.
"""
import fcntl
import glob
import gzip
import hashlib
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from . import LACKING, Failure, hosttools

SUITE = "trixie"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
QEMU_VERSION_MIN = (10, 0, 13)
QEMU_PACKAGES = "qemu-system-x86 seabios"
KERNEL_PACKAGE = "linux-image-cloud-amd64"
NODE_PACKAGES = """
    base-files bash dash mawk coreutils util-linux mount kmod udev lvm2 dmsetup sanlock qemu-utils
    iproute2 e2fsprogs xfsprogs busybox-static procps grep sed findutils
    diffutils gzip socat strace libc-bin
    libuv1t64 libprotobuf-c1 libsanlock-client1 libdevmapper1.02.1 libblkid1 libjansson4 libisal2
    libcurl4t64 libnghttp2-14 libgcc-s1 libasan8 libubsan1 python3-minimal
    libopeniscsiusr libisns0t64
"""
# Without what they depend on: the rest serves an installed system (debconf and perl, here).
ALONE_PACKAGES = "open-iscsi"
EARLY_MODULES = ("virtio_pci", "virtio_blk", "ext4", "overlay")
NOT_UNPACKED = ("./usr/share/man/*", "./usr/share/doc/*", "./usr/share/locale/*",
                "./usr/share/info/*", "./usr/share/lintian/*", "./usr/share/bash-completion/*",
                "./usr/lib/x86_64-linux-gnu/libicu*")
UNUSED_DAYS_MAX = 14


def cache_root():
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.abspath(os.environ.get("LUNAR_CACHE") or os.path.join(home, "lunar"))


def cache_dir():
    path = os.path.join(cache_root(), "vm")
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as e:
        raise Failure(f"cache {path}: {e.strerror} (set LUNAR_CACHE)", LACKING) from e
    return path


def say(text):
    print(f"vmcluster: {text}", file=sys.stderr, flush=True)


def run(command, log, code=1, **more):
    """Runs a build step; its output goes to the log, whose tail is the error message."""
    with open(log, "ab") as out:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **more,
                              check=False)
    if done.returncode != 0:
        with open(log, "rb") as f:
            tail = f.read()[-1500:].decode(errors="replace")
        raise Failure(f"{os.path.basename(command[0])} failed ({done.returncode}):\n{tail}", code)


# ---- apt: the machine's mirror, another suite, nothing installed ----

def debian_mirror():
    """The base address of the Debian mirror that the machine's own apt is set up with."""
    given = os.environ.get("LUNAR_DEBIAN_MIRROR")
    if given:
        return given
    fields = "$(REPO_URI)|$(ORIGIN)|$(LABEL)|$(COMPONENT)"
    listed = subprocess.run(["apt-get", "indextargets", "--format", fields, "Created-By: Packages"],
                            stdout=subprocess.PIPE, text=True, check=False).stdout
    rows = [line.split("|") for line in listed.splitlines()]
    exact = [r[0] for r in rows if r[1:3] == ["Debian", "Debian"]]
    likely = [r[0] for r in rows if r[3] == "main" and "security" not in r[0]]
    if not exact + likely:
        raise Failure("apt on this machine has no Debian mirror configured; set "
                      "LUNAR_DEBIAN_MIRROR to the address of one", LACKING)
    return (exact + likely)[0]


class Apt:
    """An apt of its own: private lists and status, packages in a pool that later builds reuse."""

    def __init__(self, work, log):
        self.work, self.log = work, log
        self.pool = os.path.join(cache_dir(), "debs")
        for d in ("lists/partial", "cache"):
            os.makedirs(os.path.join(work, d))
        os.makedirs(os.path.join(self.pool, "partial"), exist_ok=True)
        open(os.path.join(work, "status"), "w").close()
        signed = f"[signed-by={KEYRING}] " if os.path.exists(KEYRING) else ""
        with open(os.path.join(work, "sources.list"), "w") as f:
            f.write(f"deb {signed}{debian_mirror()} {SUITE} main\n")

    def command(self, tool, *words):
        where = {"Dir::Etc::sourcelist": f"{self.work}/sources.list",
                 "Dir::Etc::sourceparts": "/dev/null", "Dir::State::Lists": f"{self.work}/lists",
                 "Dir::State::status": f"{self.work}/status", "Dir::Cache": f"{self.work}/cache",
                 "Dir::Cache::archives": self.pool, "APT::Install-Recommends": "0",
                 "APT::Sandbox::User": "root", "Acquire::Languages": "none",
                 "Debug::NoLocking": "1"}
        options = [x for k, v in where.items() for x in ("-o", f"{k}={v}")]
        return [tool, *options, *words]

    def update(self):
        run(self.command("apt-get", "-qq", "update"), self.log, LACKING)

    def output(self, *command):
        return subprocess.run(self.command(*command), stdout=subprocess.PIPE, text=True,
                              check=False).stdout

    def fetch(self, packages):
        """Downloads packages with all they depend on; returns the paths of their files."""
        run(self.command("apt-get", "-qq", "-y", "-d", "install", *packages), self.log,
            LACKING)
        plan = self.output("apt-get", "-s", "install", *packages)
        names = re.findall(r"^Inst (\S+) \((\S+) .*\[(\w+)\]\)", plan, re.M)
        return [f"{self.pool}/{n.split(':')[0]}_{v.replace(':', '%3a')}_{a}.deb"
                for n, v, a in names]

    def fetch_alone(self, package):
        """A package's own file, without what it depends on."""
        run(self.command("apt-get", "-qq", "download", package), self.log, LACKING, cwd=self.pool)
        found = glob.glob(f"{self.pool}/{package}_*.deb")
        return max(found, key=os.path.getmtime)

    def fetch_kernel(self):
        """The kernel's own package only: what it depends on serves an installed system."""
        text = self.output("apt-cache", "depends", KERNEL_PACKAGE)
        image = re.search(r"Depends: (linux-image-[0-9]\S+)", text)
        if not image:
            raise Failure(f"{KERNEL_PACKAGE} not found in {SUITE}")
        return self.fetch_alone(image.group(1))


def check_qemu_version(files):
    for path in files:
        m = re.search(r"/qemu-(?:utils|system-x86)_(?:\d+%3a)?(\d+)\.(\d+)\.(\d+)", path)
        if m and tuple(map(int, m.groups())) < QEMU_VERSION_MIN:
            raise Failure(f"the mirror has {os.path.basename(path)}; QEMU 10.0.13 or newer needed",
                          LACKING)


# ---- trees ----

def unpack(files, root, log):
    for d in ("bin", "sbin", "lib", "lib64"):
        os.makedirs(f"{root}/usr/{d}")
        os.symlink(f"usr/{d}", f"{root}/{d}")
    exclude = " ".join(f"--exclude='{x}'" for x in NOT_UNPACKED)

    def one(path):
        run(["sh", "-c", f"dpkg-deb --fsys-tarfile \"$1\" | tar -x -C \"$2\" "
             f"--keep-directory-symlink --no-same-owner {exclude}", "sh", path, root], log)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, files))


def guest_program(root, program, *words):
    """The command that runs a program of an unpacked tree on this host."""
    libs = f"{root}/usr/lib/x86_64-linux-gnu"
    return [f"{root}/lib64/ld-linux-x86-64.so.2", "--library-path", f"{libs}:{libs}/pulseaudio",
            "--argv0", os.path.basename(words[0]) if words else os.path.basename(program),
            f"{root}/{program}", *words[1:]]


def qemu_program(base_dir):
    """The words that start QEMU out of the cache; the host's own QEMU is never used."""
    root = f"{base_dir}/qemu"
    return [*guest_program(root, "usr/bin/qemu-system-x86_64", "qemu-system-x86_64"),
            "-L", f"{root}/usr/share/qemu", "-L", f"{root}/usr/share/seabios"]


def install_modules(kernel_tree, root, log):
    """Puts the kernel's modules into the node's tree, unpacked, with their index."""
    version = os.listdir(f"{kernel_tree}/usr/lib/modules")[0]
    target = f"{root}/usr/lib/modules/{version}"
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.move(f"{kernel_tree}/usr/lib/modules/{version}", target)
    run(["sh", "-c", f"find '{target}' -name '*.ko.xz' -print0 | xargs -0 -r -P2 -n64 xz -d"], log)
    run(guest_program(root, "usr/bin/kmod", "depmod", "-b", root, version), log)
    return target


def early_modules(modules):
    """The files that EARLY_MODULES need, dependencies first; built-in ones need none."""
    needs, order = {}, []
    with open(f"{modules}/modules.dep") as f:
        for line in f:
            path, deps = line.split(":")
            needs[os.path.basename(path)[:-3].replace("-", "_")] = (path, deps.split())
    for name in EARLY_MODULES:
        path, deps = needs.get(name, (None, []))
        for p in [*reversed(deps), path]:
            if p and p not in order:
                order.append(p)
    return order


def make_early(root, modules, out):
    os.makedirs(out)
    shutil.copy2(f"{root}/usr/bin/busybox", f"{out}/busybox")
    names = []
    for path in early_modules(modules):
        names.append(os.path.basename(path))
        shutil.copy2(f"{modules}/{path}", f"{out}/{names[-1]}")
    with open(f"{out}/modules.list", "w") as f:
        f.write("".join(n + "\n" for n in names))


def finish_root(root, log):
    """What package scripts would have done, as far as a node needs it."""
    for d in ("proc", "sys", "dev", "run", "tmp", "mnt", "root", "var/lib", "var/tmp", "etc"):
        os.makedirs(f"{root}/{d}", exist_ok=True)
    links = {"usr/bin/sh": "bash", "usr/bin/awk": "mawk", "usr/bin/ping": "busybox",
             "usr/bin/vi": "busybox", "usr/bin/hostname": "busybox",
             "etc/mtab": "../proc/self/mounts"}
    for name, target in links.items():
        if not os.path.lexists(f"{root}/{name}"):
            os.symlink(target, f"{root}/{name}")
    if not os.path.lexists(f"{root}/var/run"):
        os.symlink("../run", f"{root}/var/run")
    if os.geteuid() == 0:   # chroot; without the cache the loader merely searches a little longer
        run(["ldconfig", "-r", root], log)


def make_root_image(root, image, log):
    used = subprocess.run(["du", "-sm", root], stdout=subprocess.PIPE, text=True, check=True)
    size_mb = int(used.stdout.split()[0]) * 115 // 100 + 24
    with open(image, "wb") as f:
        f.truncate(size_mb << 20)
    fakeroot = [] if os.geteuid() == 0 else ["fakeroot"]
    run([*fakeroot, "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m0",
         "-E", "root_owner=0:0", "-d", root, image], log)


def extract_vmlinux(bzimage, out):
    """The ELF kernel inside a bzImage; its place and length stand in the setup header."""
    with open(bzimage, "rb") as f:
        data = f.read()
    start = (data[0x1F1] + 1) * 512
    offset, length = struct.unpack_from("<II", data, 0x248)
    payload = data[start + offset:start + offset + length]
    if payload[:4] == b"\x28\xb5\x2f\xfd":      # zstd, followed by its unpacked size
        payload = subprocess.run(["zstd", "-dc"], input=payload[:-4], stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL, check=False).stdout
    elif payload[:4] == b"\xfd7zX":
        payload = lzma.LZMADecompressor().decompress(payload)
    elif payload[:2] == b"\x1f\x8b":
        payload = gzip.decompress(payload[:-4])
    if payload[:4] != b"\x7fELF":
        raise Failure("the kernel image is compressed in a way vmcluster does not know")
    with open(out, "wb") as f:
        f.write(payload)


# ---- the build ----

def key():
    with open(__file__, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()[:16]


def build(work, log):
    apt = Apt(f"{work}/apt", log)
    say(f"fetching Debian {SUITE} packages (once; about 150 MB)")
    apt.update()
    qemu_debs = apt.fetch(QEMU_PACKAGES.split())
    node_debs = apt.fetch(NODE_PACKAGES.split())
    node_debs += [apt.fetch_alone(p) for p in ALONE_PACKAGES.split()]
    kernel_deb = apt.fetch_kernel()
    check_qemu_version(qemu_debs + node_debs)
    say("unpacking")
    os.makedirs(f"{work}/done")
    unpack(qemu_debs, f"{work}/done/qemu", log)
    unpack(node_debs, f"{work}/root", log)
    run(["dpkg-deb", "-x", kernel_deb, f"{work}/kernel"], log)
    say("building the node image")
    extract_vmlinux(glob.glob(f"{work}/kernel/boot/vmlinuz-*")[0], f"{work}/done/vmlinux")
    modules = install_modules(f"{work}/kernel", f"{work}/root", log)
    make_early(f"{work}/root", modules, f"{work}/done/early")
    finish_root(f"{work}/root", log)
    make_root_image(f"{work}/root", f"{work}/done/root.img", log)


def remove_old(keep):
    """Bases that no checkout has used for a while, and what killed builds left."""
    for path in glob.glob(f"{cache_dir()}/base-*") + glob.glob(f"{cache_dir()}/tmp-*"):
        age_days = (time.time() - os.path.getmtime(path)) / 86400
        if path != keep and (age_days > UNUSED_DAYS_MAX or "/tmp-" in path):
            shutil.rmtree(path, ignore_errors=True)


def ensure(rebuild=False):
    """Returns the base directory, built when needed."""
    done = os.path.join(cache_dir(), f"base-{key()}")
    with open(os.path.join(cache_dir(), "lock"), "w") as lock:
        if not rebuild and os.path.isdir(done):
            os.utime(done)
            return done
        fcntl.flock(lock, fcntl.LOCK_EX)
        if rebuild:
            shutil.rmtree(done, ignore_errors=True)
        if not os.path.isdir(done):
            hosttools.ensure()
            remove_old(done)
            work = f"{cache_dir()}/tmp-{os.getpid()}"
            os.makedirs(work)
            try:
                began = time.monotonic()
                build(work, f"{work}/build.log")
                os.rename(f"{work}/done", done)
                say(f"base built in {time.monotonic() - began:.0f} s")
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return done
