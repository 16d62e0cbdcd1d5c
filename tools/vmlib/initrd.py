# SPDX-License-Identifier: Apache-2.0
"""Builds the initramfs: early-init plus the files of vmlib/guest that go on top of the root image.

Happy path: a newc cpio archive written here, named by the content of the base and of every file
in vmlib/guest, so an edit takes effect at the next `up` without touching the root image. A node's
own settings and the cluster's token are a second, tiny archive appended per node: the kernel
unpacks archives one after the other.

Failure modes: written under another name and renamed, so two builders only do the work twice. A
compiler error of execd.c is shown as it is.
"""
import hashlib
import os
import stat
import subprocess

from . import Failure, hosttools

GUEST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guest")
# file in vmlib/guest -> path in the archive and mode; the rest (etc/...) keeps its path, 0644
PLACES = {
    "early-init": ("init", 0o755),
    "node-init": ("guest/usr/sbin/node-init", 0o755),
    "node-sanlock": ("guest/usr/sbin/node-sanlock", 0o755),
    "node-iscsi": ("guest/usr/sbin/node-iscsi", 0o755),
    "node-target": ("guest/usr/sbin/node-target", 0o755),
}


def cpio(entries):
    """entries: (path, mode with file type, data). Missing parent directories are added."""
    out, seen = [], set()

    def add(path, mode, data):
        name = path.encode() + b"\0"
        fields = [len(seen) + 1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0]
        head = b"070701" + b"".join(b"%08X" % x for x in fields) + name
        out.append(head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4))

    for path, mode, data in entries:
        parts = path.split("/")
        for i in range(1, len(parts)):
            parent = "/".join(parts[:i])
            if parent not in seen:
                seen.add(parent)
                add(parent, stat.S_IFDIR | 0o755, b"")
        seen.add(path)
        add(path, mode, data)
    add("TRAILER!!!", 0, b"")
    blob = b"".join(out)
    return blob + b"\0" * (-len(blob) % 512)


def guest_files():
    for folder, _, names in sorted(os.walk(GUEST)):
        for name in sorted(names):
            path = os.path.join(folder, name)
            with open(path, "rb") as f:
                yield os.path.relpath(path, GUEST), f.read()


def compile_execd(out):
    hosttools.ensure()
    done = subprocess.run(["cc", "-O2", "-static", "-o", out, f"{GUEST}/execd.c"],
                          stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"execd.c does not compile:\n{done.stderr}")
    with open(out, "rb") as f:
        data = f.read()
    os.unlink(out)
    return data


def entries(base, execd):
    regular, folder = stat.S_IFREG, stat.S_IFDIR
    for d in ("dev", "proc", "sys", "lower", "upper", "new", "bin"):
        yield d, folder | 0o755, b""
    for name in sorted(os.listdir(f"{base}/early")):
        with open(f"{base}/early/{name}", "rb") as f:
            yield ("bin/busybox" if name == "busybox" else name), regular | 0o755, f.read()
    for name, data in guest_files():
        if name in PLACES:
            yield PLACES[name][0], regular | PLACES[name][1], data
        elif name.startswith("etc/"):
            yield f"guest/{name}", regular | 0o644, data
    yield "guest/usr/sbin/vm-execd", regular | 0o755, execd


def ensure(base):
    """Returns the path of the initramfs for this base and these guest files."""
    digest = hashlib.sha256()
    with open(__file__, "rb") as f:
        digest.update(f.read())
    for name, data in guest_files():
        digest.update(b"%s %d " % (name.encode(), len(data)) + data)
    path = os.path.join(base, f"initrd-{digest.hexdigest()[:16]}")
    if not os.path.exists(path):
        temporary = f"{path}.{os.getpid()}"
        blob = cpio(entries(base, compile_execd(temporary + ".execd")))
        with open(temporary, "wb") as f:
            f.write(blob)
        os.rename(temporary, path)
    return path


def for_node(shared, settings, token, out):
    """Writes a node's own initramfs: the shared one and its settings. Kept private: the token."""
    env = "".join(f"{k}={v}\n" for k, v in settings.items()).encode()
    own = cpio([("guest/etc/vmcluster.env", stat.S_IFREG | 0o644, env),
                ("guest/etc/vmcluster.token", stat.S_IFREG | 0o600, token.encode())])
    with open(shared, "rb") as f:
        blob = f.read() + own
    with open(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
        f.write(blob)
