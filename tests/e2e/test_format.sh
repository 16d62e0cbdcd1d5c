#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# `lunarctl lun format` and `lun dump` on a loop device of this machine: what is refused, what a kill at every point leaves
# behind, what garbage does. Needs root, losetup, lvm, sanlock, jq and python3; exits 77 with a reason without them.
# LUNARCTL names the program (default: build/dev/lunarctl of this repository).
set -u -o pipefail

here=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$here/../.." && pwd)
lunarctl=${LUNARCTL:-${LUNAR_BUILD:-$repo/build/dev}/lunarctl}
work=$(mktemp -d "${TMPDIR:-/tmp}/lunar-format.XXXXXX")
dev=
background=
n=0
failed=0

skip() {
    echo "# skipped: $1"
    rm -rf "$work"
    exit 77
}

detach() {
    [ -z "$dev" ] || losetup -d "$dev"
    dev=
}

cleanup() {
    [ -z "$background" ] || kill "$background" 2>/dev/null
    detach
    rm -rf "$work"
}

[ "$(id -u)" = 0 ] || skip "needs root for losetup"
for tool in losetup lvm sanlock jq python3 mkfs.ext4; do
    command -v $tool >/dev/null || skip "$tool is not installed"
done
[ -x "$lunarctl" ] || skip "$lunarctl is not built"
trap cleanup EXIT
truncate -s 64K "$work/probe"
dev=$(losetup -f --show "$work/probe" 2>/dev/null) || skip "no loop devices here"
detach

# fresh [losetup options]: $dev is a blank LUN of 512 MiB.
fresh() {
    detach
    rm -f "$work/lun"
    truncate -s 512M "$work/lun"
    dev=$(losetup -f --show "$@" "$work/lun") || exit 1
}

format() { # [options]: its words are in $work/out
    # The subshell keeps bash's own "Killed" lines out of the test's output.
    (
        "$lunarctl" lun format "$dev" --pool demo --max-nodes 4 --io-timeout 2 --watchdog-timeout 10 "$@" \
            >"$work/out" 2>&1
        exit $?
    ) 2>/dev/null
}

dump() { # JQ-EXPRESSION
    "$lunarctl" lun dump "$dev" -o json 2>&1 | jq -r "$1"
}

said() {
    grep -q -- "$1" "$work/out"
}

why() {
    echo "# $*"
    sed 's/^/#   /' "$work/out"
    return 1
}

# What a finished format must look like, whatever was there before.
is_ready_and_clean() {
    local want='ready 2 4 [] [] [] [] [] 1 lunar-demo false'
    local got
    got=$(dump '[.state, (.superblocks | map(select(.state == "ready")) | length), .lockspace.free, .up_pages,
        .down_pages, .grants, .reports, .metadata_copies, .lvm.seqno, .lvm.vg,
        ([.resources[], .lockspace.leases[]] | any(has("damaged")))] | map(tostring) | join(" ")')
    [ "$got" = "$want" ] || why "the pool is '$got', not '$want'"
}

# ------------------------------------------------------------------------------------------------------------------

a_blank_device_becomes_a_ready_pool() {
    fresh
    format && is_ready_and_clean || why "format failed"
}

sectors_of_4096_bytes_work_too() {
    fresh --sector-size 4096
    format && is_ready_and_clean && [ "$(dump .superblocks[0].layout.sector_size)" = 4096 ] || why failed
}

a_pool_is_refused_without_force_and_stays_as_it_is() {
    fresh
    format || why "first format" || return
    local before after
    before=$(md5sum <"$work/lun")
    format
    [ $? = 1 ] || why "exit code" || return
    said "carries the lunar pool 'demo'" || why "words" || return
    after=$(md5sum <"$work/lun")
    [ "$before" = "$after" ] || why "the refusal wrote to the LUN"
}

force_makes_a_dead_pool_a_new_one() {
    fresh
    format || return
    local old
    old=$(dump .superblocks[0].pool_id)
    format --force && is_ready_and_clean && [ "$(dump .superblocks[0].pool_id)" != "$old" ] || why failed
}

foreign_signatures_are_named_and_refused_without_force() {
    local before after
    fresh
    mkfs.ext4 -q -L precious "$dev" 2>/dev/null
    before=$(md5sum <"$work/lun")
    format
    [ $? = 1 ] && said 'ext4 filesystem "precious"' || why "ext4" || return
    after=$(md5sum <"$work/lun")
    [ "$before" = "$after" ] || why "the refusal wrote to the LUN" || return
    format --force && is_ready_and_clean || why "with --force" || return
    fresh
    # One Linux partition of 8 MiB in a DOS table.
    { head -c 446 /dev/zero; printf '\0\0\0\0\203\0\0\0\0\10\0\0\0\100\0\0'; head -c 48 /dev/zero; printf '\125\252'; } |
        dd of="$dev" bs=512 count=1 iflag=fullblock conv=fsync status=none
    format
    [ $? = 1 ] && said 'dos partition table' || why "partition table"
}

a_foreign_volume_group_is_refused_even_over_an_interrupted_format() {
    fresh
    LUNAR_KILL_AT=2 format # FORMATTING is written
    [ "$(dump .state)" = formatting ] || why "not formatting" || return
    lvm pvcreate -qq -y "$dev" >/dev/null 2>&1
    lvm vgcreate -qq -y foreign "$dev" --config "devices { filter=[\"a|^$dev\$|\",\"r|.*|\"] } global { activation=0 }" \
        >/dev/null 2>&1 || why "no foreign VG could be made" || return
    format
    [ $? = 1 ] && said 'somebody has used it' || why "exit code or words"
}

an_interrupted_format_under_a_new_filesystem_needs_force() {
    fresh
    LUNAR_KILL_AT=2 format
    mkfs.ext4 -q -E nodiscard,lazy_itable_init=1 "$dev" 2>/dev/null
    [ "$(dump .state)" = formatting ] || why "mkfs overwrote the superblock" || return
    format
    [ $? = 1 ] && said 'somebody has used it' || why "exit code or words" || return
    format --force && is_ready_and_clean || why "with --force"
}

a_device_in_use_is_refused() {
    fresh
    python3 - "$dev" "$work/held" <<'EOF' &
import os, sys, time
os.open(sys.argv[1], os.O_RDWR | os.O_EXCL)
open(sys.argv[2], "w").close()
time.sleep(60)
EOF
    background=$!
    for _ in $(seq 100); do [ -e "$work/held" ] && break; sleep 0.1; done
    format --force
    local rc=$?
    kill $background
    wait $background 2>/dev/null
    background=
    [ $rc = 1 ] && said 'in use on this node' || why "exit code $rc or words"
}

small_devices_files_and_bad_options_are_refused() {
    detach
    rm -f "$work/lun"
    truncate -s 200M "$work/lun"
    dev=$(losetup -f --show "$work/lun")
    format
    [ $? = 1 ] && said 'needs at least' || why small || return
    "$lunarctl" lun format "$work/lun" --pool demo >"$work/out" 2>&1
    [ $? = 1 ] && said 'not a block device' || why file || return
    format --io-timeout 1 --watchdog-timeout 60
    [ $? = 2 ] && said 'would reset itself' || why timeouts || return
    format --pool Demo
    [ $? = 2 ] || why "bad pool name" || return
    format --extent-size 5MiB
    [ $? = 2 ] && said 'power of two' || why "extent size"
}

# A node that is alive renews its delta lease. Here a process does the same with the timestamp and the record's checksum.
renew() { # LOCKSPACE-OFFSET SECONDS [HOST-ID]: one renewal every half second
    python3 - "$dev" "$1" "$2" "${3:-1}" <<'EOF'
import mmap, os, struct, sys, time
def crc(data):
    c = 0xfffffffe
    for b in data:
        c ^= b
        for _ in range(8):
            c = (c >> 1) ^ (0x82f63b78 & -(c & 1))
    return c
fd = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
until, host = time.monotonic() + float(sys.argv[3]), int(sys.argv[4])
at = int(sys.argv[2]) + (host - 1) * 512
at, o = at // 4096 * 4096, at % 4096
page = mmap.mmap(-1, 4096)
stamp = 1000
while True:
    os.preadv(fd, [page], at)
    stamp += 1
    page[o + 32:o + 48] = struct.pack("<QQ", host, 1)
    page[o + 152:o + 160] = struct.pack("<Q", stamp)
    page[o + 168:o + 172] = struct.pack("<I", crc(page[o:o + 168]))
    os.pwritev(fd, [page], at)
    if time.monotonic() > until:
        break
    time.sleep(0.5)
EOF
}

a_living_lockspace_is_refused_even_with_force() {
    fresh
    format || return
    renew "$(dump .superblocks[0].layout.lockspace)" 30 &
    background=$!
    for _ in $(seq 100); do [ "$(dump .lockspace.free)" = 3 ] && break; sleep 0.1; done
    format --force
    local rc=$?
    kill $background
    wait $background 2>/dev/null
    background=
    [ $rc = 1 ] && said 'ALIVE' || why "exit code $rc or words" || return
    [ "$(dump .state)" = ready ] || why "the refusal changed the state"
}

safety_22_a_living_lockspace_is_refused_when_no_superblock_tells_its_size() {
    fresh
    format --max-nodes 256 --extent-size 4MiB || why "format" || return
    renew "$(dump .superblocks[0].layout.lockspace)" 60 161 &
    background=$!
    for _ in $(seq 100); do [ "$(dump .lockspace.free)" = 255 ] && break; sleep 0.1; done
    dd if=/dev/zero of="$dev" bs=1M seek=65 count=1 oflag=direct conv=notrunc 2>/dev/null
    format --force --max-nodes 4 --extent-size 4MiB
    local rc=$?
    kill $background
    wait $background 2>/dev/null
    background=
    [ $rc = 1 ] && said 'ALIVE' || why "exit code $rc or words"
}

a_dead_lockspace_is_watched_and_then_given_up() { # 8N + W = 26 s
    [ "${LUNAR_TEST_LONG:-0}" = 1 ] || { echo "# takes half a minute: only with LUNAR_TEST_LONG=1"; return 77; }
    fresh
    format || return
    renew "$(dump .superblocks[0].layout.lockspace)" 0
    local start=$SECONDS
    format --force || why "force" || return
    [ $((SECONDS - start)) -ge 26 ] || why "it did not watch long enough" || return
    is_ready_and_clean
}

# Between kill and second run: never a half pool that looks whole.
state_after_kill() { # POINT: sets $state
    state=$(dump .state)
    case $state in
    unknown) [ "$1" = 1 ] || why "killed at $1, the LUN does not say that it was being formatted" ;;
    formatting) return 0 ;;
    ready) is_ready_and_clean || why "killed at $1, the pool says READY but is not" ;;
    *) why "killed at $1, the state is '$state'" ;;
    esac
}

# kill_loop BEFORE OPTIONS...: runs BEFORE, then a format that is killed at its 1st, 2nd, ... point, then another one.
kill_loop() {
    local before=$1 point=1 rc
    shift
    while :; do
        $before || return
        LUNAR_KILL_AT=$point format "$@"
        rc=$?
        [ $rc != 0 ] || break
        [ $rc = 137 ] || why "killed at $point: exit code $rc" || return
        state_after_kill $point || return
        if [ "$state" = formatting ]; then
            format # without --force, whatever it took at first
        elif [ "$state" = unknown ]; then
            format "$@"
        else
            point=$((point + 1))
            continue
        fi
        [ $? = 0 ] || why "second run after a kill at $point" || return
        [ "$state" != formatting ] || said 'was interrupted; starting over' || why "it did not say so" || return
        is_ready_and_clean || return
        point=$((point + 1))
    done
    [ $point -gt 8 ] || why "there are only $point kill points"
    echo "# $((point - 1)) kill points"
}

killed_at_any_point_a_second_run_completes() {
    kill_loop fresh
}

make_dirty_pool() { # a former pool whose pages, tables and copies are full of somebody's bytes
    fresh
    format || return
    local start size
    start=$(dump .superblocks[0].layout.up_pages)
    size=$(dump '.superblocks[0].layout | .area_start + .area_size - .up_pages')
    dd if=/dev/urandom of="$work/lun" bs=1M seek=$((start / 1048576)) count=$((size / 1048576)) conv=notrunc status=none
    detach
    mv "$work/lun" "$work/dirty"
}

dirty_pool() {
    detach
    cp --sparse=always "$work/dirty" "$work/lun"
    dev=$(losetup -f --show "$work/lun")
}

killed_over_an_old_pool_the_old_one_never_comes_back() {
    local old point=1 rc
    make_dirty_pool || return
    while :; do
        dirty_pool || return
        old=$(dump .superblocks[0].pool_id)
        LUNAR_KILL_AT=$point format --force
        rc=$?
        [ $rc != 0 ] || break
        if [ $point -gt 1 ]; then
            [ "$(dump '.superblocks | map(select(.state == "ready" and .pool_id == "'"$old"'")) | length')" = 0 ] ||
                why "killed at $point: the old pool is READY" || return
        fi
        format --force && is_ready_and_clean || why "second run after a kill at $point" || return
        point=$((point + 1))
    done
    is_ready_and_clean
}

# Wrappers around the helper programs kill lunarctl before or after the n-th call of any of them.
make_wrappers() {
    mkdir -p "$work/bin"
    for tool in lvm sanlock; do
        cat >"$work/bin/$tool" <<EOF
#!/bin/bash
n=\$((\$(cat $work/calls) + 1))
echo \$n >$work/calls
[ "\$n" != "\$LUNAR_TEST_BEFORE" ] || { kill -9 \$PPID; exit 1; }
$(command -v $tool) "\$@"
rc=\$?
[ "\$n" != "\$LUNAR_TEST_AFTER" ] || kill -9 \$PPID
exit \$rc
EOF
        chmod +x "$work/bin/$tool"
    done
}

killed_around_any_helper_program_a_second_run_completes() {
    local call=1 side rc
    make_wrappers
    # lvm gets a clean environment, so the numbers are written into the wrappers.
    local sides=AFTER # before a call is after the one before it, but for what lunarctl itself does in between
    [ "${LUNAR_TEST_LONG:-0}" != 1 ] || sides="BEFORE AFTER"
    while :; do
        for side in $sides; do
            fresh
            echo 0 >"$work/calls"
            sed -i "s/^LUNAR_TEST_.*//; 2i LUNAR_TEST_$side=$call" "$work/bin/lvm" "$work/bin/sanlock"
            PATH=$work/bin:$PATH LUNAR_LVM_PATH=$work/bin/lvm format
            rc=$?
            [ $rc != 0 ] || break 2
            [ $rc = 137 ] || why "call $call $side: exit code $rc" || return
            [ "$(dump .state)" = formatting ] || why "call $call $side: not formatting" || return
            format && said 'was interrupted; starting over' && is_ready_and_clean ||
                why "second run after call $call $side" || return
        done
        call=$((call + 1))
    done
    [ $call -gt 5 ] || why "only $call helper calls were seen"
    echo "# $((call - 1)) helper calls"
}

dump_of_garbage_says_damaged_and_goes_on() {
    fresh
    format || return
    local at layout
    layout=$("$lunarctl" lun dump "$dev" -o json | jq '.superblocks[0].layout')
    for at in lockspace resources up_pages down_pages grants_a reports_b metadata_a metadata_b; do
        dd if=/dev/urandom of="$work/lun" bs=4096 seek=$(($(jq ".$at" <<<"$layout") / 4096)) count=1 conv=notrunc \
            status=none
    done
    losetup -d "$dev"
    dev=$(losetup -f --show -r "$work/lun")
    "$lunarctl" lun dump "$dev" --pages >"$work/out" 2>&1 || why "exit code" || return
    [ "$(grep -c damaged "$work/out")" -ge 8 ] || why "not everything is called damaged" || return
    [ "$(dump '[.. | objects | select(has("damaged"))] | length')" -ge 8 ] || why json || return
    [ "$(dump .state)" = ready ] || why state
}

dump_without_a_superblock_shows_what_is_left() {
    fresh
    format || return
    dd if=/dev/urandom of="$work/lun" bs=4096 seek=$((65 * 256)) count=1 conv=notrunc status=none
    [ "$("$lunarctl" lun dump "$work/lun" -o json | jq -r .state)" = ready ] || why "one copy is enough" || return
    dd if=/dev/urandom of="$work/lun" bs=4096 seek=$((65 * 256 + 128)) count=1 conv=notrunc status=none
    "$lunarctl" lun dump "$work/lun" >"$work/out" 2>&1
    [ $? = 1 ] && said 'no readable lunar superblock' && said 'VG lunar-demo' || why "words" || return
    format
    [ $? = 1 ] || why "a damaged pool was formatted without --force"
}

dump_of_a_blank_or_tiny_device_is_exit_1() {
    fresh
    "$lunarctl" lun dump "$dev" >"$work/out" 2>&1
    [ $? = 1 ] && said 'no readable' || why blank || return
    truncate -s 1M "$work/tiny"
    "$lunarctl" lun dump "$work/tiny" >"$work/out" 2>&1
    [ $? = 1 ] || why tiny
}

tests=(
    a_blank_device_becomes_a_ready_pool
    sectors_of_4096_bytes_work_too
    a_pool_is_refused_without_force_and_stays_as_it_is
    force_makes_a_dead_pool_a_new_one
    foreign_signatures_are_named_and_refused_without_force
    a_foreign_volume_group_is_refused_even_over_an_interrupted_format
    an_interrupted_format_under_a_new_filesystem_needs_force
    a_device_in_use_is_refused
    small_devices_files_and_bad_options_are_refused
    a_living_lockspace_is_refused_even_with_force
    safety_22_a_living_lockspace_is_refused_when_no_superblock_tells_its_size
    a_dead_lockspace_is_watched_and_then_given_up
    killed_at_any_point_a_second_run_completes
    killed_over_an_old_pool_the_old_one_never_comes_back
    killed_around_any_helper_program_a_second_run_completes
    dump_of_garbage_says_damaged_and_goes_on
    dump_without_a_superblock_shows_what_is_left
    dump_of_a_blank_or_tiny_device_is_exit_1
)
for t in "${tests[@]}"; do
    n=$((n + 1))
    : >"$work/out"
    $t
    case $? in
    0) echo "ok $n - $t" ;;
    77) echo "ok $n - $t # SKIP" ;;
    *)
        echo "not ok $n - $t"
        failed=1
        ;;
    esac
done
echo "1..$n"
exit $failed
