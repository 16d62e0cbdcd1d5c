# SPDX-License-Identifier: Apache-2.0
"""KVM or TCG: found out by booting the kernel, not by looking at /dev/kvm.

Happy path: the node's kernel is started under KVM with "vmprobe"; its initramfs prints a line and
powers off, within a second on a healthy host. The verdict is kept per host boot and base.

Failure modes: there are machines where /dev/kvm opens and virtual machines are created but no
guest ever gets through its boot, or QEMU asserts: the probe ends after PROBE_S with SIGKILL and the
answer is TCG. LUNAR_ACCEL=kvm or tcg overrides all of this.
"""
import os
import subprocess

from . import Failure, base

PROBE_S = 8


def boot_id():
    with open("/proc/sys/kernel/random/boot_id") as f:
        return f.read().strip()


def probe(base_dir, initrd):
    command = [*base.qemu_program(base_dir), "-M", "q35,graphics=off", "-accel", "kvm",
               "-cpu", "host", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none",
               "-no-reboot", "-kernel", f"{base_dir}/vmlinux", "-initrd", initrd,
               "-append", "console=ttyS0 quiet panic=-1 vmprobe", "-serial", "stdio"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, timeout=PROBE_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return b"VM-PROBE-OK" in done.stdout


def choose(base_dir, initrd):
    """Returns "kvm" or "tcg"."""
    wish = os.environ.get("LUNAR_ACCEL", "auto")
    if wish in ("kvm", "tcg"):
        return wish
    if wish != "auto":
        raise Failure(f"LUNAR_ACCEL={wish}: auto, kvm or tcg")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    verdict = os.path.join(base_dir, f"accel-{boot_id()}")
    if not os.path.exists(verdict):
        base.say("trying KVM")
        word = "kvm" if probe(base_dir, initrd) else "tcg"
        with open(f"{verdict}.{os.getpid()}", "w") as f:
            f.write(word)
        os.rename(f"{verdict}.{os.getpid()}", verdict)
    with open(verdict) as f:
        return f.read()
