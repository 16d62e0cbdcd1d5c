#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test_stack.sh: an attachment's stack in a real kernel, by tests/e2e/stack_driver.c: no agent, no coordinator, no sanlock.
#
# Happy path: one node of the test bed; every promise of src/agent/stack.h is tried against real device-mapper, VDUSE, vdpa
# and qemu-storage-daemon, and after each test nothing of lunar's may stand in the kernel. Times are printed.
# Failure modes: the first broken promise is printed with what stands, and the test exits 1; exit 77 with the reason when the
# test bed or the driver is not there. Usage: test_stack.sh [FOLDER OF stack_driver] [-k PATTERN]
set -u
here=$(dirname "$(readlink -f "$0")")
vm=$here/../../tools/vmcluster
build=$here/../../build/dev
[ $# -gt 0 ] && [ "$1" != -k ] && { build=$1; shift; }
pattern=${2:-.}
[ -x "$build/stack_driver" ] || { echo "skipped: no $build/stack_driver; build it first"; exit 77; }
if [ -z "${LUNAR_CLUSTER:-}" ]; then
    export LUNAR_CLUSTER=stack$$
    trap '"$vm" down' EXIT
    trap 'exit 130' INT TERM
    "$vm" up --nodes 1 --lun-size 4G --no-sanlock; rc=$?
    [ $rc = 77 ] && exit 77
    [ $rc = 0 ] || { echo "the test bed does not come up"; exit 1; }
fi
"$vm" push node1 "$build/stack_driver" /usr/local/bin/stack_driver &&
    "$vm" push node1 "$here/../../manifests/udev/10-lunar-dm.rules" /etc/udev/rules.d/10-lunar-dm.rules ||
    { echo "cannot prepare the node"; exit 1; }

# Everything below runs in the node.
"$vm" exec node1 --timeout 1400 -- env PATTERN="$pattern" LONG="${LUNAR_TEST_LONG:-0}" bash -s <<'GUEST'
set -u
root=/run/lunar/attach
mib=1048576
vol=01234567-89ab-4def-8000-000000000001; att=a7000000-0000-4000-8000-000000000001
thick_att=a7000000-0000-4000-8000-000000000002
thin=(device=/dev/vdb size=$((1024*mib)) volume=$vol attachment=$att name=vol1
      segment=$((256*mib)):$((128*mib)) segment=$((512*mib)):$((256*mib)))
thick=(device=/dev/vdb size=$((64*mib)) volume=11234567-89ab-4def-8000-000000000002
       attachment=$thick_att name=vol2 thick=1 segment=$((1024*mib)):$((64*mib)))
dev=/dev/lunar/test/vol1 thick_dev=/dev/lunar/test/vol2
vduse=v0123456789ab4def
log=/run/stack_driver.log
passed=0

d() { stack_driver "$@" 2>>$log; }
ok() { passed=$((passed + 1)); echo "ok $passed - $*"; }
broken() {
    echo "not ok - $*"; dmsetup info -c; dmsetup table; vdpa dev show; ls -lR $root; pgrep -a qemu
    tail -n 25 $log; dmesg | tail -n 5; echo "$passed passed, 1 failed"; exit 1
}
within() { local end=$((SECONDS + $1)); shift
    until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep 0.1; done; }
nothing_left() {
    [ -z "$(dmsetup ls | grep lunar)" ] || broken "$1: maps are left"
    [ -z "$(vdpa dev show)" ] || broken "$1: a vdpa device is left"
    [ "$(ls /dev/vduse)" = control ] || broken "$1: a VDUSE device is left"
    [ -z "$(ls -A $root 2>/dev/null)" ] || broken "$1: state is left"
    links=$(find /dev/lunar -name '*vol*' 2>/dev/null)
    [ -z "$links" ] || broken "$1: links are left: $links"
    # udevd may handle a device's first event after its last one and leave a node of nothing behind (seen once in four runs). No
    # map stands behind it, as was checked above; the next attach checks and replaces it (dm.c, check_node).
    for node in $(find /dev/mapper -name 'lunar-*' 2>/dev/null); do
        echo "# $1: stale $(stat -c %F "$node") $node"
        rm -f "$node"
    done
    within 5 sh -c '! pgrep -f "^qemu-storage"' || broken "$1: a daemon is left"
}
# A layer of 64 MiB that grows, behind which everything waits; `grow N` gives it N stretches of 64 MiB, far from each other.
growing=(device=/dev/vdb size=$((1024*mib)) volume=$vol attachment=$att name=vol1)
stretches() { local i; echo max=$((66*1024*1024*mib))
    for ((i = 0; i < $1; i++)); do echo "segment=$(((256 + i*160)*mib)):$((64*mib))"; done; }
grow() { d grow "${growing[@]}" $(stretches $1) >/dev/null; }
fresh_growing() { d format "${growing[@]}" $(stretches 1) && d attach "${growing[@]}" $(stretches 1) >/dev/null || broken "attach"; }
# Requests to the volume are on their way, and none of them ends.
waits() {
    local minor a b; minor=$(dmsetup info -c --noheadings -o minor lunar-$vduse-h)
    a=$(cat /sys/block/dm-$minor/stat); sleep 0.7; b=$(cat /sys/block/dm-$minor/stat)
    [ "$(echo $a | cut -d' ' -f1,5)" = "$(echo $b | cut -d' ' -f1,5)" ] && [ "$(echo $b | cut -d' ' -f9)" -gt 0 ]
}
tails() { dmsetup ls | grep -c -- "-t0-"; }
one_flat_map() { # STRETCHES
    [ "$(tails)" = 1 ] || broken "$(tails) tails after the growth"
    [ "$(dmsetup table lunar-$vduse-l0 | wc -l)" = $(($1 + 1)) ] || broken "the map is not flat"
}
growing_clean() { # STRETCHES
    local i; for ((i = 0; i < $1; i++)); do echo "$((i*64*2048)) $((64*2048)) linear /dev/vdb $(((256 + i*160)*2048))"; done |
        dmsetup create check || broken "map for the check"
    qemu-img check -f qcow2 /dev/mapper/check >/run/check 2>&1; local rc=$?
    [ $rc = 0 ] || [ $rc = 3 ] || { cat /run/check; broken "qemu-img check"; }
    dmsetup remove check
}

qsd_pid() { cut -d' ' -f1 $root/$att/qsd.process; }
exited() { [ ! -d /proc/$1 ] || { grep -q '^State:.Z' /proc/$1/status && [ "$(ls /proc/$1/task | wc -l)" = 1 ]; }; }
# Until it is gone: an agent sees the exit whenever that comes, but `recover` looks once.
kill_daemon() { local p; p=$(qsd_pid); kill -9 "$p"; within 20 exited "$p" || broken "the daemon does not exit"; }
attach() { d attach "${thin[@]}" >/dev/null || broken "attach"; }
fresh() { d format "${thin[@]}" || broken "format"; attach; }
mounted() { fresh; mkfs.ext4 -qF $dev && mount $dev /mnt || broken "mkfs and mount"; }
detach() { d detach ${1:-$att} >/dev/null || broken "detach"; }
# says WHAT took how long, from the driver's last log
took() { grep -E "$1" $log | tail -n 1 | grep -o 'ms=[0-9]*'; }

data_survives_detach_and_attach() {
    mounted
    dd if=/dev/urandom of=/mnt/data bs=1M count=64 conv=fsync status=none
    sum=$(sha256sum </mnt/data)
    umount /mnt && detach; nothing_left "detach"
    local detach_time; detach_time=$(took stack_detached)
    attach; mount $dev /mnt || broken "mount again"
    [ "$(sha256sum </mnt/data)" = "$sum" ] || broken "other bytes"
    umount /mnt; detach
    echo "# format $(took stack_formatted) attach $(took stack_attached) detach $detach_time"
    grep stack_step $log | tail -n 6 | sed 's/.*step=/# step /'
    ok "64 MiB written, detached, attached: the same sum"
}

a_mounted_volume_is_not_detached() {
    mounted
    d detach $att >/dev/null && broken "detached under a mount"
    tail -n 1 $log | grep -q '^IN_USE' || broken "not refused as IN_USE"
    echo still >/mnt/x && sync || broken "the volume is hurt by the refusal"
    umount /mnt; exec 7<$dev
    d detach $att >/dev/null && broken "detached while open"
    exec 7<&-; detach; nothing_left "detach"
    ok "detach refuses while H is mounted or open, and does it afterwards"
}

a_second_attach_touches_nothing() {
    mounted
    d attach "${thin[@]}" >/dev/null && broken "attached twice"
    tail -n 1 $log | grep -q '^EXISTS' || broken "the same attachment is not EXISTS"
    d attach "${thin[@]}" attachment=a7000000-0000-4000-8000-000000000009 >/dev/null && broken "attached twice"
    tail -n 1 $log | grep -q '^IN_USE' || broken "another attachment is not IN_USE"
    d format "${thin[@]}" && broken "formatted while attached"
    echo still >/mnt/x && sync || broken "the first is hurt"
    umount /mnt; detach; nothing_left "detach"
    ok "a second attach and a format of an attached volume are refused and touch nothing"
}

a_daemon_dies_under_a_writer() {
    dmesg -C; mounted
    local before; before=$(grep -c stack_daemon_restarted $log)
    stack_driver supervise 600 >/dev/null 2>>$log & local s=$!
    ( for i in 1 2 3 4 5 6; do
        dd if=/dev/urandom of=/mnt/f$i bs=64k count=160 conv=fsync status=none || exit 1
        sha256sum </mnt/f$i >/mnt/f$i.sum || exit 1
      done ) & local w=$!
    for i in 1 2 3; do
        sleep 0.7; local p; p=$(qsd_pid); kill -9 $p
        within 20 sh -c "[ \$(cut -d' ' -f1 $root/$att/qsd.process) != $p ] && kill -0 \$(cut -d' ' -f1 $root/$att/qsd.process)" ||
            broken "not restarted"
    done
    wait $w || broken "a writer saw an error"
    # Not in the middle of the third restart, which a fast writer does not need any more.
    within 20 sh -c "[ \$(grep -c stack_daemon_restarted $log) -eq $((before + 3)) ]" || broken "no third restart"
    kill $s; wait $s 2>/dev/null
    sync; echo 3 >/proc/sys/vm/drop_caches
    for i in 1 2 3 4 5 6; do
        [ "$(sha256sum </mnt/f$i)" = "$(cat /mnt/f$i.sum)" ] || broken "f$i has other bytes"
    done
    umount /mnt; e2fsck -fn $dev >/run/fsck.log 2>&1 || broken "fsck: $(tail -n 3 /run/fsck.log)"
    dmesg | grep -E 'I/O error|EXT4-fs error' && broken "errors in the kernel log"
    detach; nothing_left "detach"
    qcow_clean
    echo "# restart $(took stack_daemon_restarted)"
    ok "three kill -9 of the daemon under a writer: no error, sums equal, fsck clean"
}

# The layer's QCOW2 says it is sound.
qcow_clean() {
    dmsetup create check --table "0 $((256*2048/2)) linear /dev/vdb $((256*2048))
$((128*2048)) $((256*2048)) linear /dev/vdb $((512*2048))" || broken "map for the check"
    # 3: clusters that were allocated and not linked yet when the daemon was killed. They cost space, no data.
    qemu-img check -f qcow2 /dev/mapper/check >/run/check 2>&1
    case $? in
    0) ;;
    3) echo "# qemu-img check: $(grep -c '^Leaked' /run/check) clusters leaked by the kills" ;;
    *) cat /run/check; broken "qemu-img check" ;;
    esac
    dmsetup remove check
}

answered_writes_survive_kill_9() {
    fresh
    dd if=/dev/urandom of=/run/r bs=1M count=16 status=none
    dd if=/run/r of=$dev bs=64k oflag=direct status=none || broken "write"
    kill_daemon; d recover >/dev/null || broken "recover"
    dd if=/dev/zero of=$dev bs=4k count=1 seek=200000 oflag=direct conv=fsync status=none || broken "write and flush"
    dd if=$dev of=/run/back bs=1M count=16 iflag=direct status=none
    cmp /run/r /run/back || broken "answered writes are gone with the daemon"
    rm /run/r /run/back; detach; nothing_left "detach"
    ok "writes that were answered before a kill -9, but not flushed, are there after it"
}

an_agent_restart_is_not_noticed() {
    mounted; local p; p=$(qsd_pid)
    ( dd if=/dev/urandom of=/mnt/f bs=64k count=300 conv=fsync status=none ) & local w=$!
    for i in 1 2 3 4 5; do d recover >/dev/null || broken "recover"; done
    wait $w || broken "the writer saw an error"
    [ "$(qsd_pid)" = "$p" ] || broken "the daemon was restarted"
    # maps that a predecessor left suspended, or with a table not resumed
    dmsetup suspend --noflush --nolockfs lunar-$vduse-p
    dmsetup load lunar-$vduse-l0 --table "0 $((384*2048)) error"
    d recover >/dev/null || broken "recover"
    dd if=/mnt/f of=/dev/null bs=1M iflag=direct status=none || broken "not put straight"
    umount /mnt; detach; nothing_left "detach"
    ok "agent restarts adopt a busy stack; suspended maps and loaded tables are put straight"
}

what_is_partial_is_torn_down() {
    local missing
    for missing in h "h p" "h DAEMON" "h p DAEMON" "h STATE" "h DAEMON STATE" "h p FOLDER"; do
        fresh
        for m in $missing; do case $m in
            DAEMON) kill -9 "$(qsd_pid)";;
            STATE) echo '{"crc32c": 1, "state": {}}' >$root/$att/state.json;;
            FOLDER) mv $root/$att /run/moved;;
            *) dmsetup remove lunar-$vduse-$m || broken "dmsetup remove";;
        esac; done
        if [ -d /run/moved ]; then
            # nobody knows the daemon's socket any more; it must still not keep the LUN open unnoticed
            d recover >/dev/null && broken "a daemon without a folder went unnoticed"
            mv /run/moved $root/$att
        fi
        d recover >/dev/null || broken "recover without $missing"
        rm -f $dev; nothing_left "recover without $missing"
    done
    ok "stacks that lack any part are torn down, also with a dead daemon or a damaged state"
}

an_agent_killed_in_mid_attach_is_cleaned_up_after() {
    d format "${thin[@]}" || broken "format"
    local adopted=0 ms
    for ms in 005 010 015 020 030 040 050 060 080 100 150 200 300 400 500 600 800 999; do
        { timeout -s KILL 0.$ms stack_driver attach "${thin[@]}" >/dev/null 2>>$log; } 2>/dev/null
        d recover >/run/out || broken "recover after 0.$ms s"
        if grep -q adopted /run/out; then adopted=$((adopted + 1)); d teardown >/dev/null || broken "teardown"; fi
        nothing_left "recover after 0.$ms s"
    done
    attach; detach
    ok "an agent killed at 18 points of an attach: adopted ($adopted) or torn down, never half"
}

an_agent_killed_in_mid_format_is_cleaned_up_after() {
    local ms
    for ms in 010 030 050 080 120 200; do
        { timeout -s KILL 0.$ms stack_driver format "${thin[@]}" 2>>$log; } 2>/dev/null
        within 5 sh -c '! pgrep -x qemu-img' || broken "qemu-img outlives its agent"
        d recover >/dev/null || broken "recover after 0.$ms s"
        nothing_left "recover after 0.$ms s"
    done
    fresh; detach
    ok "an agent killed in mid-format: qemu-img dies with it, its map is removed, the job can be repeated"
}

# The LUN is a map that can be suspended: what is written then hangs, as on an array without paths.
a_hung_lun_makes_teardown_time_out_and_not_lie() {
    dmsetup create lun --table "0 $(blockdev --getsz /dev/vdb) linear /dev/vdb 0" || broken "map"
    d format "${thin[@]}" device=/dev/mapper/lun && d attach "${thin[@]}" device=/dev/mapper/lun >/dev/null || broken "attach"
    dd if=/dev/zero of=$dev bs=1M count=4 oflag=direct status=none || broken "write"
    dmsetup suspend --noflush --nolockfs lun
    dd if=/dev/urandom of=$dev bs=1M count=4 oflag=direct status=none 2>/dev/null & local w=$!
    local minor; minor=$(dmsetup info -c --noheadings -o minor lunar-$vduse-l0)
    within 10 sh -c "read -r r w </sys/block/dm-$minor/inflight && [ \$w -gt 0 ]" || broken "nothing is in flight"
    local begin=$SECONDS
    d teardown >/dev/null && broken "torn down while I/O is on its way to the LUN"
    tail -n 1 $log | grep -q '^TIMEOUT' || broken "not TIMEOUT"
    [ $((SECONDS - begin)) -lt 60 ] || broken "no deadline"
    [ -d $root/$att ] || broken "the state is gone"
    dmsetup resume lun
    within 20 d teardown || broken "teardown after the LUN healed"
    wait $w
    dmsetup remove lun; nothing_left "teardown"
    ok "a hung LUN: teardown says TIMEOUT and keeps the state; once it heals, it ends"
}

teardown_ends_a_busy_volume() {
    mounted
    ( while dd if=/dev/urandom of=/mnt/f bs=64k count=50 conv=fsync status=none 2>/dev/null; do :; done ) & local w=$!
    sleep 0.5
    [ -n "$1" ] && kill -9 "$(qsd_pid)"
    local before after
    d teardown >/dev/null || broken "teardown"
    before=$(sed 's/^ *//' /sys/block/vdb/stat | tr -s ' ' | cut -d' ' -f7)
    within 20 sh -c "! kill -0 $w" || broken "the writer hangs"
    wait $w
    after=$(sed 's/^ *//' /sys/block/vdb/stat | tr -s ' ' | cut -d' ' -f7)
    [ "$before" = "$after" ] || broken "something was written to the LUN after the teardown"
    grep -q ' /mnt ' /proc/self/mountinfo && broken "still mounted"
    within 10 sh -c '[ -z "$(dmsetup ls | grep lunar)" ]' || broken "a map is left"
    nothing_left "teardown"
    qcow_clean
    echo "# teardown $(took stack_torn_down)"
    ok "teardown under a busy mount${1:+ whose daemon is dead}: EIO, nothing hangs, nothing is left"
}

thick_volumes_start_as_zeroes_and_keep_bytes() {
    dd if=/dev/urandom of=/dev/vdb bs=1M seek=1024 count=64 oflag=direct status=none
    d format "${thick[@]}" || broken "format"
    d attach "${thick[@]}" >/dev/null || broken "attach"
    cmp -n $((64*mib)) $thick_dev /dev/zero || broken "an old tenant's bytes show"
    mkfs.ext4 -qF $thick_dev && mount $thick_dev /mnt && cp /usr/bin/qemu-img /mnt/ && umount /mnt || broken "use"
    detach $thick_att; nothing_left "detach"
    d attach "${thick[@]}" >/dev/null && mount -o ro $thick_dev /mnt || broken "attach again"
    cmp /usr/bin/qemu-img /mnt/qemu-img || broken "other bytes"
    d recover | grep -q "adopted vol2" || broken "not adopted"
    umount /mnt; detach $thick_att; nothing_left "detach"
    echo "# thick: format $(took stack_formatted) attach $(took 'stack_attached.*vol2') detach $(took stack_detached)"
    ok "a thick volume is all zeroes at first and keeps what is written"
}

what_does_not_fit_is_refused() {
    d format "${thin[@]}" || broken "format"
    d attach "${thin[@]}" size=$((512*mib)) >/dev/null && broken "another size was attached"
    tail -n 1 $log | grep -q 'QCOW2 leaf says' || broken "no word about the size"
    nothing_left "wrong size"
    dd if=/dev/urandom of=/dev/vdb bs=64k seek=4096 count=4 oflag=direct status=none
    d attach "${thin[@]}" >/dev/null && broken "garbage was attached"
    nothing_left "garbage"
    d attach "${thin[@]}" segment=$((4095*mib)):$((2*mib)) >/dev/null && broken "a map beyond the LUN"
    nothing_left "beyond the LUN"
    d attach "${thin[@]}" segment=100:512 >/dev/null && broken "odd segments"
    nothing_left "odd segments"
    ok "another size, no QCOW2, a map beyond the LUN: refused, nothing left"
}

a_layer_below_is_never_written() {
    fresh; dd if=/dev/urandom of=/run/base bs=1M count=8 status=none
    dd if=/run/base of=$dev bs=1M oflag=direct status=none; detach
    local over=(device=/dev/vdb size=$((1024*mib)) volume=$vol attachment=$att name=vol1
                layer=1 segment=$((2048*mib)):$((128*mib))
                layer=0 segment=$((256*mib)):$((128*mib)) segment=$((512*mib)):$((256*mib)))
    sum=$(dd if=/dev/vdb bs=1M skip=256 count=128 iflag=direct status=none | sha256sum)
    d format "${over[@]}" && d attach "${over[@]}" >/dev/null || broken "overlay"
    cmp -n $((8*mib)) $dev /run/base || broken "the overlay does not show what is below"
    [ "$(blockdev --getro /dev/mapper/lunar-$vduse-l0)" = 1 ] || broken "the lower map can be written"
    dd if=/dev/zero of=$dev bs=64k count=16 oflag=direct status=none || broken "write"
    cmp -n $mib $dev /dev/zero || broken "the write does not show"
    detach
    [ "$(dd if=/dev/vdb bs=1M skip=256 count=128 iflag=direct status=none | sha256sum)" = "$sum" ] ||
        broken "the layer below changed"
    rm /run/base; nothing_left "detach"
    ok "a chain of two layers: the lower shows through and does not change"
}

udev_reads_nothing() {
    fresh; udevadm settle
    for n in dm-0 dm-1 dm-2 vdc; do
        [ -e /sys/block/$n ] || continue
        udevadm info -q property -n /dev/$n | grep -E '^ID_FS|by-(uuid|label)' && broken "udev probed $n"
    done
    local minor; minor=$(dmsetup info -c --noheadings -o minor lunar-$vduse-h)
    read -r reads _ </sys/block/dm-$minor/stat
    [ "$reads" = 0 ] || broken "somebody read H $reads times"
    detach; nothing_left "detach"
    ok "nobody reads a new handle: no blkid, no LVM, no partition scan"
}

what_runs_past_the_end_waits_and_goes_on() {
    dmesg -C; fresh_growing
    dd if=/dev/urandom of=/run/r bs=1M count=280 status=none
    dd if=/run/r of=$dev bs=1M oflag=direct conv=fsync status=none & local w=$! n
    for n in 2 3 4 5; do
        within 60 waits || broken "nothing waits at stretch $n"
        kill -0 $w || broken "the writer saw an error"
        grow $n || broken "growth to $n stretches: $(tail -n 1 $log)"
        one_flat_map $n
    done
    wait $w || broken "the writer saw an error"
    grow 5 || broken "the same growth again"
    grow 4 && broken "a shorter map was taken"
    echo 3 >/proc/sys/vm/drop_caches
    cmp -n $((280*mib)) /run/r $dev || broken "other bytes"
    dmesg | grep -E 'I/O error|Buffer' && broken "errors in the kernel log"
    detach; nothing_left "detach"; growing_clean 5
    d attach "${growing[@]}" $(stretches 5) >/dev/null && cmp -n $((280*mib)) /run/r $dev || broken "other bytes after a detach"
    detach; nothing_left "detach"; rm /run/r
    echo "# growth $(took stack_grown)"
    ok "280 MiB into a layer of 64: the writer waits four times, sees no error, all bytes right"
}

# Each line makes what a growth to two stretches had come to when its agent died.
a_growth_that_died_is_gone_on_with() {
    local step t1 t2 size rest a b
    for step in tail loaded opened map-loaded map-suspended; do
        fresh_growing
        dd if=/dev/urandom of=/run/r bs=1M count=100 status=none
        dd if=/run/r of=$dev bs=1M oflag=direct conv=fsync status=none & local w=$!
        within 60 waits || broken "nothing waits"
        t1=$(dmsetup ls | grep -o "lunar-$vduse-t0-[0-9a-f]*"); t2=lunar-$vduse-t0-8000
        size=$(dmsetup table $t1 | cut -d' ' -f2); rest=$((size - 64*2048))
        dmsetup create $t2 -u "$(dmsetup info -c --noheadings -o uuid $t1 | sed "s/$t1/$t2/")" --table "0 $rest error"
        dmsetup suspend --noflush --nolockfs $t2
        t2=$(dmsetup info -c --noheadings --separator : -o major,minor $t2)
        [ $step = tail ] || printf '%s\n' "0 $((64*2048)) linear /dev/vdb $((416*2048))" "$((64*2048)) $rest linear $t2 0" | dmsetup load $t1
        case $step in opened|map-*) dmsetup resume $t1; wait $w || broken "the writer saw an error" ;; esac
        case $step in map-*) printf '%s\n' "0 $((64*2048)) linear /dev/vdb $((256*2048))" "$((64*2048)) $((64*2048)) linear /dev/vdb $((416*2048))" \
            "$((128*2048)) $rest linear $t2 0" | dmsetup load lunar-$vduse-l0 ;; esac
        [ $step != map-suspended ] || dmsetup suspend --nolockfs lunar-$vduse-l0
        grow 2 || broken "after $step: $(tail -n 1 $log)"
        wait $w; one_flat_map 2
        cmp -n $((100*mib)) /run/r $dev || broken "other bytes after $step"
        detach; nothing_left "detach after $step"; growing_clean 2
    done
    rm /run/r
    ok "a growth that died after any step is gone on with by the next one"
}

a_daemon_killed_while_it_waits_ends_with_the_growth() {
    fresh_growing
    stack_driver supervise 600 >/dev/null 2>>$log & local s=$!
    dd if=/dev/urandom of=/run/r bs=1M count=100 status=none
    dd if=/run/r of=$dev bs=1M oflag=direct conv=fsync status=none & local w=$!
    within 60 waits || broken "nothing waits"
    kill -9 "$(qsd_pid)"
    d recover >/dev/null || broken "recover while something waits"
    grow 2 || broken "growth: $(tail -n 1 $log)"
    wait $w || broken "the writer saw an error"
    kill $s; wait $s 2>/dev/null
    cmp -n $((100*mib)) /run/r $dev || broken "other bytes"
    detach; nothing_left "detach"; growing_clean 2; rm /run/r
    ok "a daemon killed while its writes wait: the growth lets it go, the next one serves, all bytes right"
}

what_waits_is_ended_by_a_teardown() {
    local dead
    for dead in "" daemon-dead; do
        fresh_growing
        dd if=/dev/urandom of=$dev bs=1M count=100 oflag=direct status=none 2>/dev/null & local w=$!
        within 60 waits || broken "nothing waits"
        [ -z "$dead" ] || kill -9 "$(qsd_pid)"
        d teardown >/dev/null || broken "teardown: $(tail -n 1 $log)"
        wait $w && broken "the writer saw no error"
        within 10 sh -c '[ -z "$(dmsetup ls | grep lunar)" ]' || broken "a map is left"
        nothing_left "teardown"
        echo "# teardown while something waits $dead $(took stack_torn_down)"
    done
    ok "a teardown ends what waits with an error; nothing hangs, nothing is left"
}

# Layers for `overlay`: number N lies at 1536 + 48N MiB, 48 MiB of it, and grows; its like is the base, number 0.
chained=(device=/dev/vdb size=$((1024*mib)) volume=$vol attachment=$att name=vol1)
chain() { local i; for ((i = $1; i >= 0; i--)); do echo "layer=$i segment=$(((1536 + i*48)*mib)):$((48*mib)) max=$((66*1024*1024*mib))"; done; }
layer_sum() { dd if=/dev/vdb bs=1M skip=$((1536 + $1*48)) count=48 iflag=direct status=none | sha256sum; }
blank() { # LAYER: its format job's work, which runs on any node, so under another volume's name here
    d format device=/dev/vdb size=$((1024*mib)) volume=21234567-89ab-4def-8000-000000000003 name=x \
        attachment=a7000000-0000-4000-8000-000000000009 layer=$1 segment=$(((1536 + $1*48)*mib)):$((48*mib)) || broken "format layer $1"
}
# Slots of 256 KiB in the first 16 MiB are written in a random order; /run/slot.N says which of 8 patterns was answered last.
patterns() { local i; for i in 0 1 2 3 4 5 6 7; do dd if=/dev/urandom of=/run/pattern.$i bs=256k count=1 status=none; done; }
write_slots() {
    local s p
    rm -f /run/slot.* /run/stop
    while [ ! -e /run/stop ]; do
        s=$((RANDOM % 64)); p=$((RANDOM % 8))
        dd if=/run/pattern.$p of=$dev bs=256k seek=$s oflag=direct conv=notrunc status=none 2>>/run/write.err || return 1
        echo $p >/run/slot.$s
    done
}
compare_slots() {
    local s
    for s in $(seq 0 63); do
        [ -e /run/slot.$s ] || continue
        dd if=$dev bs=256k skip=$s count=1 iflag=direct status=none | cmp -s - /run/pattern."$(cat /run/slot.$s)" || broken "$1: slot $s has other bytes"
    done
}
overlay() { d overlay "${chained[@]}" $(chain $1) >/dev/null; }

overlays_under_a_writer() {
    local n sums=() pauses
    patterns; d format "${chained[@]}" $(chain 0) && d attach "${chained[@]}" $(chain 0) >/dev/null || broken "attach"
    write_slots & local w=$!
    within 20 test -e /run/slot.5 || broken "the writer does not start"
    # what an agent leaves that is killed between a new leaf's tail and its map
    loose=lunar-$vduse-t1-$(printf %x $((48*mib/4096)))
    dmsetup create $loose -u "$(dmsetup info -c --noheadings -o uuid ${loose/-t1-/-t0-} | sed "s/-t0-/-t1-/")" --table "0 8 error" &&
        dmsetup suspend $loose || broken "make a loose tail"
    for n in $(seq 1 20); do
        blank $n
        overlay $n || broken "overlay $n: $(tail -n 1 $log)"
        sums[n]=$(layer_sum $((n - 1)))
        [ "$(dmsetup info -c --noheadings -o attr lunar-$vduse-l$((n - 1)) | cut -c4)" = r ] || broken "the former leaf's map can be written"
        kill -0 $w || broken "the writer saw an error: $(cat /run/write.err)"
    done
    [ "$(dmsetup ls | grep -c -- '-t[0-9]')" = 1 ] || broken "tails of former leaves are left"
    overlay 20 || broken "the same again"
    overlay 19 && broken "a chain that lacks what stands was taken"
    overlay 22 && broken "a chain with two new layers was taken"
    touch /run/stop; wait $w || broken "the writer saw an error: $(cat /run/write.err)"
    for n in $(seq 1 20); do
        [ "$(layer_sum $((n - 1)))" = "${sums[n]}" ] || broken "layer $((n - 1)) was written after it was frozen"
    done
    compare_slots "after 20 overlays"
    kill_daemon; d recover >/dev/null || broken "recover"
    compare_slots "with another daemon"
    detach; nothing_left "detach"
    d attach "${chained[@]}" $(chain 20) >/dev/null || broken "attach 21 layers"
    compare_slots "attached again"
    detach; nothing_left "detach"
    pauses=$(grep -o 'stack_overlaid.*pause_us=[1-9][0-9]*' $log | grep -o '[0-9]*$' | sort -n | tail -n 20)
    echo "# 20 overlays: pause median $(echo "$pauses" | sed -n 10p) us, longest $(echo "$pauses" | tail -n 1) us; restart with 21 layers $(took stack_daemon_restarted)"
    ok "20 overlays under a writer: no error, all bytes right, no former leaf changes"
}

# Kills the agent, or the daemon, at ever later moments of an overlay; the same overlay goes on from there. Each victim has every
# third moment, a longer test gives each of them all.
overlays_die_at_every_step() {
    local n=0 k=0 ms victim o
    patterns; d format "${chained[@]}" $(chain 0) && d attach "${chained[@]}" $(chain 0) >/dev/null || broken "attach"
    write_slots & local w=$!
    within 20 test -e /run/slot.5 || broken "the writer does not start"
    for ms in 010 020 030 040 050 060 070 080 090 100 120 140 160 200 250; do k=$((k + 1)); for victim in agent daemon both; do
        case $LONG$((k % 3))$victim in 00agent | 01daemon | 02both | 1*) ;; *) continue ;; esac
        n=$((n + 1)); blank $n
        { stack_driver overlay "${chained[@]}" $(chain $n) >/dev/null 2>>$log & } 2>/dev/null; o=$!
        sleep 0.$ms
        [ $victim = daemon ] || kill -9 $o 2>/dev/null
        [ $victim = agent ] || kill_daemon
        wait $o 2>/dev/null
        d recover >/run/out || broken "recover: $victim killed after 0.$ms s"
        grep -q adopted /run/out || broken "torn down under the writer: $victim killed after 0.$ms s"
        overlay $n || broken "the overlay again: $victim killed after 0.$ms s: $(tail -n 1 $log)"
        sum=$(layer_sum $((n - 1)))
        kill -0 $w || broken "the writer saw an error: $(cat /run/write.err)"
        [ "$(layer_sum $((n - 1)))" = "$sum" ] || broken "a former leaf changed: $victim killed after 0.$ms s"
    done; done
    touch /run/stop; wait $w || broken "the writer saw an error: $(cat /run/write.err)"
    compare_slots "after the kills"
    detach; nothing_left "detach"
    d attach "${chained[@]}" $(chain $n) >/dev/null || broken "attach $((n + 1)) layers"
    compare_slots "attached again"
    detach; nothing_left "detach"
    ok "agent, daemon or both killed at 15 points of an overlay each: it is gone on with, no byte is lost"
}

tails() { dmsetup ls | grep -c -- '-t[0-9]'; }
one_tail() { [ "$(tails)" = 1 ]; }
a_restart_takes_the_tails_of_lower_layers() {
    patterns; d format "${chained[@]}" $(chain 0) && d attach "${chained[@]}" $(chain 0) >/dev/null || broken "attach"
    dd if=/run/pattern.1 of=$dev bs=256k oflag=direct status=none || broken "write"
    detach; blank 1
    d attach "${chained[@]}" $(chain 1) >/dev/null || broken "attach" # as an overlay leaves it that a growth kept from freezing
    [ "$(tails)" = 2 ] || broken "$(tails) tails"
    : >$log
    stack_driver supervise 600 >/dev/null 2>>$log & local s=$!
    within 20 grep -q stack_adopted $log || broken "no supervisor"
    kill -9 "$(qsd_pid)"
    within 60 one_tail || broken "the lower layer kept its tail"
    [ "$(dmsetup info -c --noheadings -o attr lunar-$vduse-l0 | cut -c4)" = r ] || broken "the lower layer's map can be written"
    cmp -n 262144 $dev /run/pattern.1 || broken "other bytes"
    kill $s; wait $s 2>/dev/null
    detach; nothing_left "detach"
    ok "a restarted daemon finds no tail below its leaf"
}

what_is_no_empty_leaf_is_not_put_over() {
    patterns; d format "${chained[@]}" $(chain 0) && d attach "${chained[@]}" $(chain 0) >/dev/null || broken "attach"
    dd if=/run/pattern.1 of=$dev bs=256k oflag=direct status=none
    dd if=/dev/urandom of=/dev/vdb bs=1M seek=$((1536 + 48)) count=1 oflag=direct status=none
    overlay 1 && broken "garbage was put over"
    tail -n 1 $log | grep -q 'no QCOW2' || broken "no word about it: $(tail -n 1 $log)"
    # one with a cluster in it
    dmsetup create used --table "0 $((48*2048)) linear /dev/vdb $(((1536 + 48)*2048))"
    qemu-img create -q -f qcow2 /dev/mapper/used $((1024*mib)) && qemu-io -f qcow2 -c 'write -P 7 0 64k' /dev/mapper/used >/dev/null
    within 5 dmsetup remove used || broken "remove the map"
    overlay 1 && broken "a used image was put over"
    tail -n 1 $log | grep -q 'is not empty' || broken "no word about it: $(tail -n 1 $log)"
    cmp -n 262144 $dev /run/pattern.1 || broken "the volume is hurt"
    blank 1; overlay 1 || broken "the right one: $(tail -n 1 $log)"
    cmp -n 262144 $dev /run/pattern.1 || broken "the volume is hurt"
    detach; nothing_left "detach"
    ok "garbage and used images are not put over a volume; an empty one is, afterwards"
}

resize() { d resize "${chained[@]}" size=$1 $(chain 0) >/dev/null; }

a_volume_is_expanded_under_a_writer() {
    local size=$((1024*mib)) n
    patterns; d format "${chained[@]}" $(chain 0) && d attach "${chained[@]}" $(chain 0) >/dev/null || broken "attach"
    write_slots & local w=$!
    within 20 test -e /run/slot.5 || broken "the writer does not start"
    for n in 1 2 3 4 5 6 7 8; do
        size=$((size + 512*mib))
        case $n in
        3) { stack_driver resize "${chained[@]}" size=$size $(chain 0) >/dev/null 2>>$log & } 2>/dev/null; local o=$!
           sleep 0.1; kill -9 $o; wait $o 2>/dev/null ;;
        4) { stack_driver resize "${chained[@]}" size=$size $(chain 0) >/dev/null 2>>$log & } 2>/dev/null; local o=$!
           sleep 0.1; kill_daemon; wait $o 2>/dev/null; d recover >/dev/null || broken "recover" ;;
        esac
        resize $size || broken "resize $n: $(tail -n 1 $log)"
        [ "$(blockdev --getsize64 $dev)" = $size ] || broken "the disk has $(blockdev --getsize64 $dev) bytes"
        kill -0 $w || broken "the writer saw an error: $(cat /run/write.err)"
    done
    resize $size || broken "the same again"
    resize $((size - mib)) && broken "made smaller"
    touch /run/stop; wait $w || broken "the writer saw an error: $(cat /run/write.err)"
    dd if=/run/pattern.3 of=$dev bs=256k seek=$((size / 262144 - 1)) oflag=direct conv=notrunc status=none || broken "write at the new end"
    compare_slots "after 8 expansions"
    kill_daemon; d recover >/dev/null || broken "recover"
    dd if=$dev bs=256k skip=$((size / 262144 - 1)) iflag=direct status=none | cmp - /run/pattern.3 || broken "other bytes at the end"
    detach; nothing_left "detach"
    size=$((size + 1024*mib)) # while it was detached
    d attach "${chained[@]}" size=$size $(chain 0) >/dev/null || broken "attach with a larger size"
    [ "$(blockdev --getsize64 $dev)" = $size ] || broken "the disk has $(blockdev --getsize64 $dev) bytes"
    compare_slots "after an expansion while detached"
    blank 1; d overlay "${chained[@]}" size=$size $(chain 1) >/dev/null || broken "a leaf formatted before the expansion: $(tail -n 1 $log)"
    dd if=/run/pattern.4 of=$dev bs=256k seek=$((size / 262144 - 1)) oflag=direct conv=notrunc status=none || broken "write at the end of the new leaf"
    compare_slots "after an overlay"
    detach; nothing_left "detach"
    echo "# resize $(took stack_resized)"
    ok "expanded 8 times under a writer, over kills of agent and daemon, and once detached: sizes and bytes are right"
}

a_thick_volume_is_expanded() {
    local bigger=(device=/dev/vdb volume=11234567-89ab-4def-8000-000000000002 attachment=$thick_att name=vol2 thick=1
                  segment=$((1024*mib)):$((64*mib)) segment=$((1200*mib)):$((32*mib)))
    dd if=/dev/urandom of=/dev/vdb bs=1M seek=1200 count=32 oflag=direct status=none
    d format "${thick[@]}" && d attach "${thick[@]}" >/dev/null || broken "attach"
    dd if=/dev/urandom of=/run/r bs=1M count=64 status=none
    dd if=/run/r of=$thick_dev bs=1M oflag=direct status=none & local w=$!
    d resize "${bigger[@]}" size=$((64*mib)) >/dev/null || broken "a longer layer: $(tail -n 1 $log)"
    [ "$(blockdev --getsize64 $thick_dev)" = $((64*mib)) ] || broken "the new bytes show too early"
    d resize "${bigger[@]}" size=$((96*mib)) >/dev/null || broken "the new size: $(tail -n 1 $log)"
    wait $w || broken "the writer saw an error"
    [ "$(blockdev --getsize64 $thick_dev)" = $((96*mib)) ] || broken "the disk has $(blockdev --getsize64 $thick_dev) bytes"
    cmp -n $((64*mib)) $thick_dev /run/r || broken "other bytes"
    cmp -i $((64*mib)):0 -n $((32*mib)) $thick_dev /dev/zero || broken "an old tenant's bytes show"
    d resize "${bigger[@]}" size=$((128*mib)) >/dev/null && broken "more than its layer"
    detach $thick_att; nothing_left "detach"; rm /run/r
    ok "a thick volume is expanded in two steps: its new bytes are zeroes before they show"
}

# Four layers of a volume, w at the bottom, z the leaf; y is merged into x, which has got room for it.
lay() { case $1 in w) echo layer=$2""0 segment=$((256*mib)):$((64*mib));; x) echo layer=$2""1 segment=$((400*mib)):$((64*mib)) $3;;
    y) echo layer=$2""2 segment=$((500*mib)):$((64*mib));; z) echo layer=$2""3 segment=$((600*mib)):$((64*mib));; esac; }
room="segment=$((800*mib)):$((64*mib))"
lays() { local l; for l in "$@"; do lay $l "" ""; done; }
job=(device=/dev/vdb size=$((1024*mib)) volume=77777777-89ab-4def-8000-000000000001 attachment=a7000000-0000-4000-8000-000000000007 name=merge)
merging=(device=/dev/vdb size=$((96*mib)) volume=$vol attachment=$att name=vol1)
merge() { d merge "${job[@]}" $(lay y $vol: "") $(lay x $vol: "$room") $(lay w $vol: ""); }
write_layer() { # LAYERS, leaf first: formats the leaf and writes some of all of them
    d format "${merging[@]}" $(lays $1) && d attach "${merging[@]}" $(lays "$@") >/dev/null || broken "attach $*"
    local at n; for n in 1 2 3 4 5 6; do
        at=$((RANDOM % 90)); dd if=/dev/urandom of=$dev bs=64k seek=$((at*16)) count=$((RANDOM % 60 + 1)) oflag=direct status=none || broken "write"
        dd if=/dev/urandom of=$dev bs=4k seek=$((RANDOM * 3 / 4)) count=3 oflag=direct status=none || broken "write"
    done
    blkdiscard -z -o $(((RANDOM % 90)*mib)) -l $((2*mib)) $dev && blkdiscard -o $(((RANDOM % 90)*mib)) -l $((2*mib)) $dev || broken "discard"
}
merged_layers_read_the_same() {
    write_layer w; detach; write_layer x w; detach; write_layer y x w; detach; write_layer z y x w
    local before; before=$(sha256sum <$dev)
    local round killed=0
    for round in 020 060 120 200 300; do
        { timeout -s KILL 0.$round stack_driver merge "${job[@]}" $(lay y $vol: "") $(lay x $vol: "$room") $(lay w $vol: "") >/dev/null 2>>$log; } 2>/dev/null
        [ $? = 137 ] && killed=$((killed + 1))
        within 10 sh -c '[ $(pgrep -xc qemu-storage-da) = 1 ]' || broken "the job's daemon outlives its agent"
        d recover >/dev/null || broken "recover after 0.$round s"
        [ -z "$(dmsetup ls | grep lunar-job)" ] || broken "a job's map is left"
        echo 3 >/proc/sys/vm/drop_caches
        [ "$(sha256sum <$dev)" = "$before" ] || broken "other bytes after 0.$round s"
    done
    ( while [ "$(sha256sum <$dev)" = "$before" ]; do echo 3 >/proc/sys/vm/drop_caches; [ -e /run/stop ] && exit 0; done; exit 1 ) & local r=$!
    local bytes; bytes=$(merge) || broken "merge: $(tail -n 2 $log)"
    [ "$bytes" -gt $mib ] || broken "merged $bytes bytes"
    touch /run/stop; wait $r || broken "other bytes while it was merged"
    rm /run/stop
    merge >/dev/null || broken "the same merge again"
    [ "$(sha256sum <$dev)" = "$before" ] || broken "other bytes with the merged layer in the chain"
    detach
    d attach "${merging[@]}" $(lay z "" "") $(lay x "" "$room") $(lay w "" "") >/dev/null || broken "attach without the layer"
    [ "$(sha256sum <$dev)" = "$before" ] || broken "other bytes without the merged layer"
    detach; nothing_left "detach"
    printf '%s\n' "0 $((64*2048)) linear /dev/vdb $((400*2048))" "$((64*2048)) $((64*2048)) linear /dev/vdb $((800*2048))" | dmsetup create check
    qemu-img check -f qcow2 /dev/mapper/check >/run/check 2>&1; local rc=$?
    dmsetup remove check
    [ $rc = 0 ] || [ $rc = 3 ] || { cat /run/check; broken "qemu-img check"; }
    d format "${merging[@]}" size=$((2048*mib)) $(lays y) || broken "format"
    merge >/dev/null && broken "a lower layer was merged into whose tables would have moved"
    tail -n 1 $log | grep -q ^UNSUPPORTED || broken "not refused as UNSUPPORTED"
    nothing_left "a refused merge"
    d format "${merging[@]}" size=$((400*mib)) $(lays y) || broken "format"
    merge >/dev/null || broken "a smaller layer whose tables reach the size: $(tail -n 1 $log)"
    printf '%s\n' "0 $((64*2048)) linear /dev/vdb $((400*2048))" "$((64*2048)) $((64*2048)) linear /dev/vdb $((800*2048))" | dmsetup create check
    local now; now=$(qemu-img info -f qcow2 --output json /dev/mapper/check | grep -o '"virtual-size": [0-9]*' | tail -n 1); dmsetup remove check
    [ "$now" = "\"virtual-size\": $((400*mib))" ] || broken "the lower layer shows $now"
    echo "# $bytes bytes merged $(took stack_merged), killed $killed times before"
    ok "a layer merged into the one below: a reader of both sees no change, killed or not, nor without the layer"
}

# A chain of which merged layers are dropped: `live` is what stands, leaf first. Layer N lies at 1536 + 48 (N mod 30) MiB, the bottom at 2976, and has
# a stretch of its own besides after a merge into it. Each leaf gets 1 MiB at 32 + (N mod 30) MiB of the volume that is not
# written again, so that a reader can tell of any moment whether some layer's bytes are missing.
live=() room_of=() index=0
area() { [ $1 = 0 ] && echo 2976 || echo $((1536 + $1 % 30 * 48)); }
linked() { # PREFIX
    local i; for i in "${live[@]}"; do
        echo "layer=$1$i segment=$(($(area $i)*mib)):$((48*mib))"
        [ -z "${room_of[i]:-}" ] || echo "segment=$((room_of[i]*mib)):$((48*mib))"
        echo "max=$((66*1024*1024*mib))"
    done
}
next_leaf() {
    index=$((index + 1)); live=($index "${live[@]}")
    d format device=/dev/vdb size=$((1024*mib)) volume=21234567-89ab-4def-8000-000000000003 name=x \
        attachment=a7000000-0000-4000-8000-000000000009 layer=$index segment=$(($(area $index)*mib)):$((48*mib)) || broken "format layer $index"
    d overlay "${chained[@]}" $(linked "") >/dev/null || broken "overlay $index: $(tail -n 1 $log)"
    mark_leaf
}
mark_leaf() { dd if=/dev/urandom of=$dev bs=1M seek=$((32 + index % 30)) count=1 oflag=direct conv=notrunc status=none || broken "mark"; }
marks() { dd if=$dev bs=1M skip=32 count=30 iflag=direct status=none | sha256sum; }
relink() { d relink "${chained[@]}" $(linked "") >/dev/null; }
drop_layer() { # PLACE in the chain, ROOM for the one below; VICTIM and MS: who is killed, and when
    local y=${live[$1]} x=${live[$(($1 + 1))]} before r w o
    room_of[x]=$2 before=$(marks)
    ( while [ "$(marks)" = "$before" ]; do [ -e /run/enough ] && exit 0; done; exit 1 ) & r=$!
    d merge "${job[@]}" $(live=("${live[@]:$1}"); linked $vol:) >/dev/null || broken "merge $y into $x: $(tail -n 1 $log)"
    live=("${live[@]:0:$1}" "${live[@]:$(($1 + 1))}")
    if [ -n "${3:-}" ]; then
        { stack_driver relink "${chained[@]}" $(linked "") >/dev/null 2>>$log & } 2>/dev/null; o=$!
        sleep 0.$4
        [ $3 = daemon ] || kill -9 $o 2>/dev/null
        [ $3 = agent ] || kill_daemon
        wait $o 2>/dev/null
        d recover >/run/out || broken "recover: $3 killed after 0.$4 s"
        grep -q adopted /run/out || broken "torn down under the writer: $3 killed after 0.$4 s"
    fi
    relink || broken "relink without $y: $(tail -n 1 $log)"
    dmsetup ls | grep -q -- "-l$y\b" && broken "the map of layer $y stands"
    for w in $(area $y) ${room_of[y]:-}; do dd if=/dev/zero of=/dev/vdb bs=1M seek=$w count=48 oflag=direct status=none; done
    unset "room_of[y]"
    touch /run/enough; wait $r || broken "other bytes while layer $y was dropped${3:+, $3 killed after 0.$4 s}"
    rm /run/enough
}

merged_layers_are_dropped_under_a_writer() {
    local at ms victim pauses place=1
    live=(0) room_of=() index=0
    patterns; d format "${chained[@]}" $(linked "") && d attach "${chained[@]}" $(linked "") >/dev/null || broken "attach"
    mark_leaf; write_slots & local w=$!
    within 20 test -e /run/slot.5 || broken "the writer does not start"
    next_leaf; next_leaf; next_leaf
    drop_layer 1 3072; next_leaf # the leaf is put upon what was merged into
    drop_layer 2 3168; next_leaf # a frozen layer is, and the bottom was merged into
    relink || broken "the same again"
    (live=("${live[@]:1}"); relink) && broken "a chain without the leaf was taken"
    (unset "live[-1]"; relink) && broken "a chain without its bottom was taken"
    for at in agent:050 daemon:100 both:150 agent:200 daemon:250 both:300 agent:350 daemon:400 both:500; do
        victim=${at%:*} ms=${at#*:}
        if [ $place = 1 ]; then drop_layer 1 3072 $victim $ms; place=2; else drop_layer 2 3168 $victim $ms; place=1; fi
        next_leaf
        kill -0 $w || broken "the writer saw an error: $(cat /run/write.err)"
    done
    touch /run/stop; wait $w || broken "the writer saw an error: $(cat /run/write.err)"
    [ "$(dmsetup ls | grep -c -- '-l[0-9]')" = 4 ] || broken "maps of dropped layers are left"
    local before; before=$(marks)
    compare_slots "after the relinks"
    kill_daemon; d recover >/dev/null || broken "recover"
    compare_slots "with another daemon"
    detach; nothing_left "detach"
    d attach "${chained[@]}" $(linked "") >/dev/null || broken "attach what is left"
    compare_slots "attached again"; [ "$(marks)" = "$before" ] || broken "other bytes, attached again"
    detach; nothing_left "detach"
    pauses=$(grep -o 'stack_switched.*pause_us=[1-9][0-9]*' $log | grep -o '[0-9]*$' | sort -n)
    echo "# $(echo "$pauses" | wc -l) relinks: pause median $(echo "$pauses" | sed -n $((($(echo "$pauses" | wc -l) + 1)/2))p) us, longest $(echo "$pauses" | tail -n 1) us; $(took stack_relinked)"
    ok "11 merged layers dropped from a chain under a writer, over kills of agent and daemon: no byte is missed, their space is free"
}

run() { echo "$*" | grep -qE "$PATTERN" && "$@"; }
umount -l /mnt 2>/dev/null; d teardown >/dev/null; rm -f $dev $thick_dev # of an earlier run in the same node
run data_survives_detach_and_attach
run a_mounted_volume_is_not_detached
run a_second_attach_touches_nothing
run a_daemon_dies_under_a_writer
run answered_writes_survive_kill_9
run an_agent_restart_is_not_noticed
run what_is_partial_is_torn_down
run an_agent_killed_in_mid_attach_is_cleaned_up_after
run an_agent_killed_in_mid_format_is_cleaned_up_after
run a_hung_lun_makes_teardown_time_out_and_not_lie
run teardown_ends_a_busy_volume ""
run teardown_ends_a_busy_volume daemon-dead
run thick_volumes_start_as_zeroes_and_keep_bytes
run what_does_not_fit_is_refused
run a_layer_below_is_never_written
run udev_reads_nothing
run what_runs_past_the_end_waits_and_goes_on
run a_growth_that_died_is_gone_on_with
run a_daemon_killed_while_it_waits_ends_with_the_growth
run what_waits_is_ended_by_a_teardown
run overlays_under_a_writer
run overlays_die_at_every_step
run a_restart_takes_the_tails_of_lower_layers
run what_is_no_empty_leaf_is_not_put_over
run a_volume_is_expanded_under_a_writer
run a_thick_volume_is_expanded
run merged_layers_read_the_same
run merged_layers_are_dropped_under_a_writer
echo "$passed passed, 0 failed"
GUEST
