#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test_vmcluster.sh: the test bed does what its users rely on.
#
# Happy path: a private two-node cluster comes up, every subcommand is used once and its effect is
# observed from the guest's side, and nothing is left after down. Ends with "N passed, N failed".
# Failure modes: the first broken promise is printed with its line and the test exits 1, leaving no
# cluster; exit 77 with the reason when this machine cannot build the test bed (no mirror, missing
# packages, another architecture). Effects are waited for on conditions with a limit; the only
# fixed times are those in which something must *not* happen.
set -u
vm=$(dirname "$(readlink -f "$0")")/../../tools/vmcluster
export LUNAR_CLUSTER=t$$
work=$(mktemp -d)
passed=0
trap '"$vm" down; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

ok() { passed=$((passed + 1)); echo "ok $passed - $*"; }
broken() { echo "not ok - $*"; "$vm" status; echo "$passed passed, 1 failed"; exit 1; }
on() { local node=$1; shift; "$vm" exec "$node" --timeout 60 -n -- "$@"; }

# within SECONDS COMMAND...: repeats it until it succeeds
within() {
    local end=$((SECONDS + $1)); shift
    until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep 0.1; done
}
equal() { [ "$1" = "$2" ] || broken "$3: expected '$2', got '$1'"; }
state_of() { "$vm" status -o json | python3 -c '
import json, sys
row = [r for r in json.load(sys.stdin)["nodes"] if r["node"] == sys.argv[1]][0]
print(row[sys.argv[2]])' "$1" "$2"; }
is_state() { [ "$(state_of "$1" state)" = "$2" ]; }

exec_passes_codes_and_streams() {
    on node1 sh -c 'exit 7'; equal $? 7 "exit code"
    on 1 sh -c 'kill -9 $$'; equal $? 137 "exit code after a signal"
    on node1 /no/such/program 2>/dev/null; equal $? 127 "exit code of a missing program"
    equal "$(on node1 sh -c 'echo out; echo err >&2' 2>/dev/null)" out "stdout alone"
    equal "$(on node1 sh -c 'echo out; echo err >&2' 2>&1 >/dev/null)" err "stderr alone"
    equal "$(on node1 printf '%s|' 'a b' '' '*')" 'a b||*|' "arguments"
    head -c 3000001 /dev/urandom >"$work/random"
    "$vm" exec node1 -- cat <"$work/random" | cmp - "$work/random" || broken "binary round trip"
    ok "exec passes exit codes, separate streams, arguments and binary data"
}

exec_ends_in_every_case() {
    "$vm" exec node1 --timeout 1 -- sleep 3600 2>/dev/null; equal $? 124 "time-out"
    within 10 on node1 sh -c '! pgrep -x sleep' || broken "the timed-out command lives on"
    on node1 sh -c 'sleep 3600 & echo started' >"$work/out"; equal $? 0 "background child"
    equal "$(cat "$work/out")" started "output before a background child"
    on node1 pkill -x sleep
    ok "exec ends at its time-out and does not wait for background children"
}

concurrent_execs() {
    local pids=() i
    for i in 1 2 3 4 5 6; do on node1 sh -c "sleep 1; echo $i" >"$work/par$i" & pids+=($!); done
    wait "${pids[@]}"
    equal "$(cat "$work"/par?)" "$(seq 6)" "parallel sessions"
    ok "several exec sessions run side by side"
}

push_and_pull() {
    cp "$work/random" "$work/tool"; chmod 751 "$work/tool"
    "$vm" push node1 "$work/tool" /opt/deep/tool || broken "push"
    equal "$(on node1 stat -c %a /opt/deep/tool)" 751 "mode in the node"
    "$vm" push all "$work/tool" /tmp/ && on node2 test -s /tmp/tool || broken "push to all"
    "$vm" pull node1 /opt/deep/tool "$work/back" || broken "pull"
    cmp "$work/tool" "$work/back" || broken "pulled bytes differ"
    equal "$(stat -c %a "$work/back")" 751 "mode pulled"
    "$vm" pull node1 /no/such "$work/none" 2>/dev/null && broken "pull of nothing succeeds"
    [ -e "$work/none" ] && broken "a failed pull leaves a file"
    ok "push and pull keep content and mode"
}

nodes_have_identities() {
    local a b
    a=$(on node1 cat /sys/class/dmi/id/product_uuid)
    b=$(on node2 cat /sys/class/dmi/id/product_uuid)
    [ ${#a} = 36 ] && [ "$a" != "$b" ] || broken "machine UUIDs: $a $b"
    equal "$(on node2 uname -n)" node2 "host name"
    equal "$(on node1 cat /sys/block/vdb/serial)" sanlun0 "serial of the LUN"
    echo "$a" >"$work/uuid1"
    ok "nodes have machine UUIDs of their own, names, and the LUN's serial"
}

lun_text() { on "$1" dd if=/dev/vdb bs=4096 skip=9 count=1 iflag=direct 2>/dev/null | tr -d '\0'; }

lun_is_shared() {
    on node1 sh -c 'echo from-node1 | dd of=/dev/vdb bs=4096 seek=9 conv=sync oflag=direct' \
        2>/dev/null || broken "write to the LUN"
    equal "$(lun_text node2)" from-node1 "node2 reads"
    on node2 sh -c 'echo from-node2 | dd of=/dev/vdb bs=4096 seek=9 conv=sync oflag=direct' \
        2>/dev/null || broken "write to the LUN from node2"
    equal "$(lun_text node1)" from-node2 "node1 reads"
    equal "$(dd if="$("$vm" lun-path)" bs=4096 skip=9 count=1 2>/dev/null | tr -d '\0')" \
        from-node2 "the host reads"
    ok "nodes and host see each other's writes to the LUN"
}

sanlock_is_up() {
    local text
    text=$(on node1 node-sanlock status) || broken "node-sanlock status"
    [[ $text = *our_host_name=node1*io_timeout=2*watchdog_fire_timeout=10* ]] || broken "$text"
    on node1 node-sanlock kill && on node1 node-sanlock status >/dev/null && broken "kill"
    on node1 node-sanlock start && on node1 node-sanlock status >/dev/null || broken "start again"
    on node2 node-sanlock stop || broken "stop"
    equal "$(on node2 sh -c 'pgrep -x "sanlock|wdmd"')" "" "after stop"
    on node2 node-sanlock start || broken "start after stop"
    ok "sanlock runs with the cluster's times and can be killed, stopped and started"
}

lvm_sees_only_the_lun() {
    on node1 sh -c 'exec 2>/dev/null; pvcreate -qq -y /dev/vdb && vgcreate -qq lunarvg /dev/vdb &&
        lvcreate -qq -y -Wn -Zn -L 16m -n vol lunarvg && test -b /dev/lunarvg/vol &&
        test -b /dev/mapper/lunarvg-vol' || broken "a VG on the LUN"
    on node1 pvcreate -qq /dev/lunarvg/vol >/dev/null 2>&1 && broken "LVM accepts a dm device"
    [ -z "$(on node1 find /dev/disk -name '*lunarvg*')" ] || broken "udev processed a lunar device"
    equal "$(on node2 vgs --noheadings -o vg_name | tr -d ' ')" lunarvg "node2's view"
    on node1 sh -c 'vgremove -qq -f lunarvg && pvremove -qq /dev/vdb' || broken "removal"
    ok "LVM uses the LUN and neither it nor udev touches lunar's device-mapper devices"
}

in_flight() { on "$1" sh -c 'read -r r w </sys/block/vdb/inflight; [ $((r + w)) -gt 0 ]'; }
read_lun() { on "$1" dd if=/dev/vdb of=/dev/null bs=4096 count=1 skip="$2" iflag=direct; }

lun_hangs_and_heals() {
    local reader
    "$vm" lun-hang node1 || broken "lun-hang"
    equal "$(state_of node1 lun)" hung "status"
    read_lun node1 77 2>"$work/dd" & reader=$!
    within 10 in_flight node1 || broken "no I/O is waiting"
    sleep 2
    kill -0 $reader && in_flight node1 || broken "hung I/O ended by itself"
    read_lun node2 77 2>/dev/null || broken "the other node's LUN hangs too"
    "$vm" lun-heal node1 || broken "lun-heal"
    wait $reader || broken "the hung read failed: $(cat "$work/dd")"
    ok "lun-hang holds the very first I/O, heal lets it finish"
}

lun_errors_and_heals() {
    "$vm" lun-error node1 || broken "lun-error"
    read_lun node1 78 2>"$work/dd" && broken "a read succeeds"
    grep -q 'Input/output error' "$work/dd" || broken "no EIO: $(cat "$work/dd")"
    on node1 dd if=/dev/zero of=/dev/vdb bs=4096 count=1 seek=99 oflag=direct 2>/dev/null &&
        broken "a write succeeds"
    "$vm" lun-hang node1 && "$vm" lun-heal node1 && read_lun node1 78 2>/dev/null || broken "heal"
    equal "$(state_of node1 lun)" ok "status"
    ok "lun-error gives EIO, heal ends it"
}

network_cuts_and_heals() {
    within 10 on node1 ping -c1 -W1 node2 || broken "no ping to begin with"
    "$vm" net-cut node2 || broken "net-cut"
    on node1 ping -c1 -W1 node2 >/dev/null && broken "ping goes through the cut"
    equal "$(state_of node2 net)" cut "status"
    on node2 true || broken "exec needs the nodes' network"
    "$vm" net-heal all && within 10 on node1 ping -c1 -W1 node2 || broken "net-heal"
    ok "net-cut isolates a node, exec still works, heal undoes it"
}

freeze_and_thaw() {
    local running
    on node1 sh -c 'sleep 2; echo done' >"$work/out" & running=$!
    within 10 on node1 pgrep -x sleep || broken "no command to freeze"
    "$vm" freeze node1 && is_state node1 frozen || broken "freeze"
    on node1 true 2>/dev/null; equal $? 255 "exec on a frozen node"
    sleep 2
    kill -0 $running || broken "a frozen node ends a command"
    "$vm" thaw node1 && within 20 on node1 true || broken "thaw"
    wait $running && equal "$(cat "$work/out")" "done" "a command across a freeze"
    ok "freeze stops a node, a command that was running goes on after thaw"
}

pause_and_resume() {
    local before after began ended
    before=$(on node2 cut -d' ' -f1 /proc/uptime) began=$(date +%s%N)
    "$vm" pause node2 && is_state node2 paused || broken "pause"
    sleep 4
    "$vm" resume node2 && is_state node2 running || broken "resume"
    after=$(on node2 cut -d' ' -f1 /proc/uptime) ended=$(date +%s%N)
    python3 -c "import sys; sys.exit(not $after - $before < ($ended - $began) / 1e9 - 3.5)" ||
        broken "the guest's clock ran while paused: $before $after"
    ok "pause stops the guest's clock, resume lets it go on"
}

cut_and_start() {
    local running
    on node1 sleep 3600 2>"$work/err" & running=$!
    within 10 on node1 pgrep -x sleep || broken "no command to cut"
    "$vm" cut node1 && is_state node1 off || broken "cut"
    wait $running; equal $? 255 "a command on a node that is cut"
    on node1 true 2>"$work/err"; equal $? 255 "exec on a node that is off"
    grep -q 'node1 is unreachable' "$work/err" || broken "no message: $(cat "$work/err")"
    "$vm" start node1 >/dev/null || broken "start"
    equal "$(on node1 cat /sys/class/dmi/id/product_uuid)" "$(cat "$work/uuid1")" "UUID after a cut"
    on node1 test -e /opt/deep/tool && broken "a fresh boot keeps files"
    ok "cut powers a node off, start brings the same machine back"
}

reset_means_off() {
    on node2 sh -c 'echo 1 >/proc/sys/kernel/sysrq; echo b >/proc/sysrq-trigger' 2>/dev/null
    within 20 is_state node2 off || broken "a reset node is not off"
    equal "$(state_of node2 off_reason)" "reset or shut down by itself" "reason"
    ok "a node that is reset stays off"
}

nothing_is_left() {
    local dir lun
    dir=$("$vm" status -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["dir"])')
    lun=$("$vm" lun-path)
    "$vm" down || broken "down"
    [ -e "$dir" ] || [ -e "$lun" ] && broken "files are left"
    pgrep -f "$dir/" >/dev/null && broken "processes are left"
    ok "down leaves neither processes nor files"
}

"$vm" prepare 2>"$work/prepare"
case $? in
0) ;;
77) echo "SKIP: $(cat "$work/prepare")"; exit 77;;
*) cat "$work/prepare"; broken "prepare";;
esac
"$vm" up --nodes 2 --lun-size 256M || broken "up"
"$vm" up --nodes 2 2>/dev/null && broken "a second up of a living cluster"
ok "a cluster comes up, once"
for t in exec_passes_codes_and_streams exec_ends_in_every_case concurrent_execs push_and_pull \
    nodes_have_identities lun_is_shared sanlock_is_up lvm_sees_only_the_lun lun_hangs_and_heals \
    lun_errors_and_heals network_cuts_and_heals freeze_and_thaw pause_and_resume cut_and_start \
    reset_means_off nothing_is_left; do
    $t
done
echo "$passed passed, 0 failed"
