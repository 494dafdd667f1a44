"""The shell programs that run on a node: constants, with positional parameters, for any POSIX shell with coreutils.

They need no systemd and no Python there. What they start carries ``KIT_RUN_ID`` (and ``KIT_SERVICE``) in its
environment; by these it is found again in ``/proc``, whatever became of its parents.
"""

from __future__ import annotations

PORT_TAKEN, NOT_READY, ENDED_EARLY = 90, 91, 92

# Shared: is anything listening on TCP port $1? A socket, or an RDMA connection manager id: soft-RoCE opens no socket.
_LISTENS = r"""
listens() {
    hex=$(printf '%04X' "$1")
    grep -qs ":$hex [0-9A-F]*:0000 0A" /proc/net/tcp /proc/net/tcp6 && return 0
    command -v rdma >/dev/null 2>&1 || return 1
    rdma resource show cm_id 2>/dev/null | grep -qE "state LISTEN .*src-addr [^ ]*:$1( |\$)"
}
"""

# Shared: end every process with the environment entry $1, or where $1 is only a name, with any value of it.
# TERM first, KILL after 2 s; again until none is left, because a process may start another while it is looked for.
# Never itself or an ancestor: a stage that cleans up carries the mark as well.
_STOP = r"""
family() {
    mine=" "; next=$$
    while [ "${next:-0}" -gt 1 ]; do
        mine="$mine$next "
        next=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$next/status" 2>/dev/null)
    done
}
marked() {
    found=""
    for at in $(grep -lzsE "^$1" /proc/[0-9]*/environ 2>/dev/null); do
        pid=${at#/proc/}; pid=${pid%/environ}
        case "$mine" in *" $pid "*) continue ;; esac
        # A child of this very shell carries the mark too; it is gone by the time it is looked at.
        [ -r "/proc/$pid/environ" ] || continue
        grep -qs '^State:[[:space:]]*Z' "/proc/$pid/status" && continue
        found="$found $pid"
    done
}
stop() {
    family; ended=0; turn=0
    marked "$1"; set -- "$1" $found; ended=$(($# - 1))
    while [ -n "$found" ] && [ $turn -lt 200 ]; do
        if [ $turn -lt 40 ]; then
            [ $turn -eq 0 ] && kill -TERM $found 2>/dev/null
        else
            kill -KILL $found 2>/dev/null
        fi
        sleep 0.05; turn=$((turn + 1)); marked "$1"
    done
    [ -z "$found" ]
}
"""

# $1 run id, $2 deadline in seconds, $3 "lines" to have the output line by line, then the command. The mark and the deadline hold even when the connection is lost.
# Exit code 124 alone does not tell a deadline from a command that ends so: the last line of stderr does.
RUN = r"""
run_id=$1 deadline=$2 how=$3; shift 3
if [ "$how" = lines ] && command -v stdbuf >/dev/null 2>&1; then set -- stdbuf -oL "$@"; fi
start=$(cut -d' ' -f1 /proc/uptime)
KIT_RUN_ID=$run_id timeout -k 2 "$deadline" "$@"
code=$?
echo "@@kit $code $start $(cut -d' ' -f1 /proc/uptime)" >&2
"""

# $1 run id, $2 service name, $3 deadline, $4 port or -, $5 seconds to get ready, then the command. Prints the folder.
START = _LISTENS + _STOP + r"""
run_id=$1 name=$2 deadline=$3 port=$4 ready=$5; shift 5
if [ "$port" != - ] && listens "$port"; then exit 90; fi
umask 077
folder=${TMPDIR:-/tmp}/kit-$(id -u)/$run_id/$name
rm -rf "$folder"; mkdir -p "$folder" || exit 1
lines=; command -v stdbuf >/dev/null 2>&1 && lines="stdbuf -oL"
KIT_RUN_ID=$run_id KIT_SERVICE=$name setsid sh -c '
    folder=$1 deadline=$2; shift 2
    timeout -k 2 "$deadline" "$@" >"$folder/out" 2>"$folder/err" </dev/null
    echo $? >"$folder/rc.part"; mv "$folder/rc.part" "$folder/rc"
' kit "$folder" "$deadline" $lines "$@" </dev/null >/dev/null 2>&1 &
echo "$folder"
[ "$port" = - ] && exit 0
turns=$((ready * 25))
while [ $turns -gt 0 ]; do
    listens "$port" && exit 0
    if [ -e "$folder/rc" ]; then cat "$folder/out" "$folder/err" >&2; exit 92; fi
    sleep 0.04; turns=$((turns - 1))
done
stop "KIT_SERVICE=$name\$"
cat "$folder/out" "$folder/err" >&2
exit 91
"""

# $1 folder, $2 service name, $3 seconds to wait. Prints the exit code (or "stopped"), the size of out, out, then err.
FINISH = _STOP + r"""
folder=$1 name=$2 turns=$(($3 * 25))
while [ $turns -gt 0 ] && [ ! -e "$folder/rc" ]; do sleep 0.04; turns=$((turns - 1)); done
if [ -e "$folder/rc" ]; then code=$(cat "$folder/rc"); else code=stopped; stop "KIT_SERVICE=$name\$"; fi
echo "$code"
tail -c 4194304 "$folder/out" | wc -c
tail -c 4194304 "$folder/out"
tail -c 4194304 "$folder/err"
"""

# $1 run id, or empty for any. Prints how many processes there were.
STOP = _STOP + r"""
if [ -n "$1" ]; then stop "KIT_RUN_ID=$1\$"; else stop "KIT_RUN_ID=kit-"; fi
left=$?
echo "$ended"
exit $left
"""

READ = 'exec cat -- "$1"'

# $1 path, $2 mode; the content comes on standard input. Written aside, then renamed.
WRITE = r"""
umask 077
mkdir -p -- "$(dirname -- "$1")" && cat >"$1.kit-part" && chmod "$2" "$1.kit-part" && mv -f -- "$1.kit-part" "$1"
"""
