#!/bin/bash
# What an engineer writes without the kit: the same points over one multiplexed ssh connection a node.
# loop.sh SSH_CONFIG PAUSE ADDRESS DEVICE; points on stdin: TOOL SIZE ITERATIONS a line.
# PAUSE "probe" waits until the server listens; a number sleeps that many seconds instead.
set -u
config=$1 pause=$2 address=$3 device=$4
port=19000
while read -r tool size iterations; do
    port=$((port + 1))
    flags="-d $device -p $port -F -R -s $size -n $iterations"
    case $tool in *_bw) flags="$flags --report_gbits" ;; esac
    ssh -F "$config" b "$tool $flags" </dev/null >/dev/null 2>&1 &
    if [ "$pause" = probe ]; then
        hex=$(printf '%04X' "$port")
        ssh -F "$config" b "i=0; until grep -q ':$hex [0-9A-F:]* 0A' /proc/net/tcp; do i=\$((i+1)); [ \$i -lt 300 ] || exit 1; sleep 0.05; done" </dev/null
    else
        sleep "$pause"
    fi
    ssh -F "$config" a "timeout 60 $tool $flags $address" </dev/null >/dev/null || echo "failed: $tool $size" >&2
    wait
done
