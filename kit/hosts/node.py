"""The shell programs that run on a node: constants, with positional parameters, for any POSIX shell.

They need coreutils or busybox, no systemd and no Python. What they start carries ``KIT_RUN_ID`` (the run) and
``KIT_SERVICE`` (this one command) in its environment; by these it is found again in ``/proc``, whatever became of its
parents. All times come from ``/proc/uptime``: a loop that counts its turns would outrun its deadline on a busy node.
"""

from __future__ import annotations

PORT_TAKEN, NOT_READY, ENDED_EARLY, NO_FOLDER = 90, 91, 92, 93
DEADLINE, STOPPED, GONE = "deadline", "stopped", "gone"
KEPT_BYTES = 4 << 20

# `now`: the clock, in hundredths of a second; costs no process.
_CLOCK = r"""
now() { read -r up _ </proc/uptime; now=${up%.*}${up#*.}; }
"""

# `socket PORT`: is anything listening on it? `cm_id PORT`: the same of an RDMA connection manager id, which soft-RoCE
# has instead of a socket; a slow question. `owner` is its process, where the node tells.
_LISTENS = r"""
socket() { grep -qsi ":$(printf '%04X' "$1") [0-9A-F]*:0000 0A" /proc/net/tcp /proc/net/tcp6; }
cm_id() {
    command -v rdma >/dev/null 2>&1 || return 1
    line=$(rdma resource show cm_id 2>/dev/null | grep -E "state LISTEN .*src-addr [^ ]*:$1( |\$)") || return 1
    owner=; case $line in *" pid "*) owner=${line#*" pid "}; owner=${owner%% *} ;; esac
}
"""

# `stop ENTRY`: end every process with exactly this entry in its environment ("KIT_RUN_ID=" alone: with any value of it,
# of this user), and all their descendants: a process may have cleared its environment, or written its title over it.
# TERM, KILL after 3 s, given up after 10 s; again until two looks in turn find none, because a process may start
# another while it is looked for, and shows no environment while it changes its program. Never itself or an ancestor: a
# stage that cleans up carries the mark as well.
# An entry of `table` is pid:parent:session:start, of `known` pid:start; the start time tells a process from a later
# one of the same pid.
_STOP = _CLOCK + r"""
snapshot() {
    table=; old_ifs=$IFS; IFS="
"
    for line in $(cat /proc/[0-9]*/stat 2>/dev/null); do
        IFS=$old_ifs; pid=${line%% *}
        set -- ${line##*) }
        case $1 in Z | X) continue ;; esac
        table="$table $pid:$2:$4:${20}"
    done
    IFS=$old_ifs
}
ancestors() {
    mine=" 1 "; next=$$
    while [ "${next:-0}" -gt 1 ]; do
        mine="$mine$next "
        { read -r line <"/proc/$next/stat"; } 2>/dev/null || break
        set -- ${line##*) }; next=$2
    done
}
find_marked() {
    pids=" "
    case $1 in *=) how=-lzs what="^$1." ;; *) how=-lzsxF what=$1 ;; esac
    for at in $(grep $how -e "$what" /proc/[0-9]*/environ 2>/dev/null); do
        pid=${at#/proc/}; pid=${pid%/environ}
        case $mine in *" $pid "*) continue ;; esac
        [ $how = -lzsxF ] && [ -e "$at" ] || [ -O "$at" ] || continue
        pids="$pids$pid "
    done
    found=
    [ "$pids" = " " ] && [ "$known" = " " ] && return
    snapshot; grown=yes
    while [ -n "$grown" ]; do
        grown=; rest=
        for entry in $table; do
            pid=${entry%%:*}; up=${entry#*:}; sid=${up#*:}; start=${sid#*:}; up=${up%%:*}; sid=${sid%%:*}
            case $mine in *" $pid "*) continue ;; esac
            case "$pids$known" in
                *" $pid "* | *" $up "* | *" $sid "* | *" $pid:$start "*)
                    pids="$pids$pid "; found="$found $pid:$start"; grown=yes ;;
                *) rest="$rest $entry" ;;
            esac
        done
        table=$rest
    done
}
stop() {
    ancestors; known=" "; ended=0; calm=0; now; begun=$now
    while :; do
        find_marked "$1"
        if [ -z "$found" ]; then
            [ $calm -eq 1 ] && return 0
            calm=1; continue
        fi
        calm=0; now
        for entry in $found; do
            case $known in
                *" $entry "*) [ $((now - begun)) -gt 300 ] && kill -KILL "${entry%:*}" ;;
                *) known="$known$entry "; ended=$((ended + 1)); kill -TERM "${entry%:*}" ;;
            esac
        done 2>/dev/null
        [ $((now - begun)) -gt 1000 ] && return 1
        sleep 0.03
    done
}
"""

# `supervise RUN_ID NAME DEADLINE COMMAND…`: sets `code` and `took` (hundredths of a second).
# What outlived a deadline in a session of its own is found by its mark. The clock says whether a 124 is timeout's own;
# an old busybox ends with 143.
_SUPERVISE = r"""
supervise() {
    run_id=$1 name=$2 limit=$3; shift 3
    now; start=$now
    KIT_RUN_ID=$run_id KIT_SERVICE=$name timeout -k 2 "$limit" "$@"
    code=$?; now; took=$((now - start))
    case $code in 124 | 137 | 143) [ $took -ge $((limit * 100 - 5)) ] && code=deadline ;; esac
}
"""

# With secrets, the first thing on standard input is their assignments: never in any process's arguments.
_SECRETS = r"""
[ "$secrets" = yes ] && eval "$(cat)"
"""

# $1 run id, $2 name of this command, $3 deadline, $4 "yes" if secrets come on stdin, then the command.
# The last line of stderr tells how it ended; the mark and the deadline hold even when the connection is lost.
RUN = _STOP + _SUPERVISE + r"""
run_id=$1 name=$2 deadline=$3 secrets=$4; shift 4
""" + _SECRETS + r"""
supervise "$run_id" "$name" "$deadline" "$@" </dev/null
[ $code = deadline ] && stop "KIT_SERVICE=$name"
echo "@@kit-$name $code $took" >&2
[ $code = deadline ] && exit 124
exit $code
"""

# What START leaves behind: $1 folder, $2 deadline, then the command. It outlives a TERM to write down how it ended.
# What the service leaves behind when it ends is ended too, before anyone hears of its end. The helpers of this shell
# do not carry the mark, or it would find them.
SERVICE = _STOP + _SUPERVISE + r"""
folder=$1 run_id=$KIT_RUN_ID name=$KIT_SERVICE; shift
unset KIT_RUN_ID KIT_SERVICE
trap : TERM HUP INT
supervise "$run_id" "$name" "$@" >"$folder/out" 2>"$folder/err" </dev/null
stop "KIT_SERVICE=$name"
echo "$code $took" >"$folder/rc.part"; mv "$folder/rc.part" "$folder/rc"
"""

# $1 run id, $2 service name, $3 deadline, $4 "yes" if secrets come on stdin, $5 port or -, $6 seconds to get ready,
# $7 a port that must be left first or -, $8 the program above, then the command. Prints the folder. Of folders in a
# shared /tmp only our own is used. This shell and its own children do not carry the mark: they outlive the service, to
# tell of it.
START = _LISTENS + _STOP + r"""
run_id=$1 name=$2 deadline=$3 secrets=$4 port=$5 ready=$6 after=$7 program=$8; shift 8
if [ "$port" != - ] && socket "$port"; then exit 90; fi
base=${TMPDIR:-/tmp}/kit-$(id -u)
(umask 077; mkdir -p "$base/$run_id/$name") || exit 93
if [ ! -O "$base" ] || [ -L "$base" ]; then echo "$base is not a folder of ours" >&2; exit 93; fi
folder=$base/$run_id/$name
""" + _SECRETS + r"""
now; until=$((now + ready * 100))
while [ "$after" != - ] && socket "$after" && [ $now -lt $until ]; do sleep 0.03; now; done
lines=; command -v stdbuf >/dev/null 2>&1 && lines="stdbuf -oL"
: >"$folder/out" 2>"$folder/err"
KIT_RUN_ID=$run_id KIT_SERVICE=$name setsid sh -c "$program" kit "$folder" "$deadline" $lines "$@" \
    </dev/null >/dev/null 2>&1 &
echo "$!" >"$folder/pid"
echo "$folder"
[ "$port" = - ] && exit 0
now; until=$((now + ready * 100)); slow=$((now + 20)); soon=$((now + 200))
while :; do
    socket "$port" && exit 0
    if [ -e "$folder/rc" ]; then cat "$folder/out" "$folder/err" >&2; exit 92; fi
    now; [ $now -ge $until ] && break
    if [ $now -ge $slow ]; then
        if cm_id "$port"; then
            [ -z "$owner" ] || grep -qsz "^KIT_SERVICE=$name\$" "/proc/$owner/environ" && exit 0
            stop "KIT_SERVICE=$name"; exit 90
        fi
        now; slow=$((now + 20))
    fi
    if [ $now -lt $soon ]; then sleep 0.03; else sleep 0.3; fi
done
stop "KIT_SERVICE=$name"
cat "$folder/out" "$folder/err" >&2
exit 91
"""

# $1 folder, $2 service name, $3 seconds to wait, $4 how many bytes of each stream to keep.
# Prints how it ended, the hundredths of a second it took and the size of out; then out, then err.
FINISH = _STOP + r"""
folder=$1 name=$2 keep=$4
[ -d "$folder" ] || { echo "$folder is not there any more" >&2; exit 93; }
now; until=$((now + $3 * 100)); said="stopped 0"
read -r pid <"$folder/pid"
while [ ! -e "$folder/rc" ]; do
    # Killed outright with its supervisor, as by a lack of memory: nobody is left to write rc. Looked for once more.
    if ! kill -0 "$pid" 2>/dev/null; then [ -e "$folder/rc" ] || said="gone 0"; break; fi
    now; [ $now -ge $until ] && break
    sleep 0.03
done
if [ -e "$folder/rc" ]; then read -r said <"$folder/rc"; else stop "KIT_SERVICE=$name"; fi
size=$(wc -c <"$folder/out"); [ "$size" -gt "$keep" ] && size=$keep
echo "$said" $size
tail -c "$keep" "$folder/out" | head -c "$size"
tail -c "$keep" "$folder/err"
"""

# $1 the entry to look for. Prints how many processes there were.
STOP = _STOP + r"""
stop "$1"; left=$?
echo "$ended"
exit $left
"""

READ = 'exec cat -- "$1"'

# $1 path, $2 mode, $3 size; the content comes on standard input. Written aside, then renamed; never half: a lost
# connection looks like the end of the content.
WRITE = r"""
umask 077
[ ! -d "$1" ] || { echo "$1 is a folder" >&2; exit 1; }
aside=$1.$$.kit-part
mkdir -p -- "$(dirname -- "$1")" && cat >"$aside" && [ "$(wc -c <"$aside")" -eq "$3" ] &&
    chmod "$2" "$aside" && mv -f -- "$aside" "$1" && exit 0
rm -f -- "$aside"
exit 1
"""
