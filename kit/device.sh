# Reads a node's facts; changes nothing. One program for all of them, because every ssh exec costs a round trip.
# Values come from the shell's own `read`: a guest on an emulated CPU pays dearly for each process.
# Sections start with "@@kit NAME"; a tool's output ends with "@@exit CODE", or is "@@missing".
LC_ALL=C
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export LC_ALL PATH
limit=
if command -v timeout >/dev/null 2>&1; then limit="timeout 10"; fi

part() { printf '\n@@kit %s\n' "$1"; }
tool() { # NAME COMMAND...: a hanging tool must not take the other facts with it
    part "$1"
    shift
    if command -v "$1" >/dev/null 2>&1; then
        $limit "$@" </dev/null 2>&1
        printf '\n@@exit %s\n' "$?"
    else
        echo '@@missing'
    fi
}
fetch() { v=; { IFS= read -r v <"$1"; } 2>/dev/null || [ -n "$v" ]; }
value() { if fetch "$1"; then printf '%s %s\n' "${1#/sys/}" "$v"; fi; }

part kernel; if fetch /proc/sys/kernel/osrelease; then echo "$v"; fi
part cpus; if fetch /sys/devices/system/cpu/online; then echo "$v"; fi
part memory; if fetch /proc/meminfo; then echo "$v"; fi
part memlock; ulimit -l 2>/dev/null
part systemd; if [ -d /run/systemd/system ]; then echo yes; fi
part dev_files; for f in /dev/infiniband/*; do if [ -e "$f" ]; then echo "${f##*/}"; fi; done
part perftest_path; command -v ib_write_bw 2>/dev/null
part os; cat /etc/os-release 2>/dev/null || cat /usr/lib/os-release 2>/dev/null
part modules; cat /proc/modules 2>/dev/null
# 40 lines hold the first processor; a node of 192 prints a quarter of a megabyte
part cpu; head -n 40 /proc/cpuinfo 2>/dev/null

part sysfs
for f in /sys/module/erdma/version /sys/module/erdma/parameters/* /sys/class/net/*/mtu; do
    if [ -r "$f" ]; then value "$f"; fi
done
for p in /sys/class/infiniband/*/ports/*; do
    [ -d "$p" ] || continue
    for f in "$p"/hw_counters/*; do if [ -r "$f" ]; then value "$f"; fi; done
    i=0
    empty=0
    # entries are filled from the front; rxe's table has 1024 of which two are in use
    while [ -r "$p/gids/$i" ] && [ "$empty" -lt 32 ]; do
        fetch "$p/gids/$i"
        case $v in
            '' | 0000:0000:0000:0000:0000:0000:0000:0000) empty=$((empty + 1)) ;;
            *)
                empty=0
                value "$p/gids/$i"
                value "$p/gid_attrs/types/$i"
                value "$p/gid_attrs/ndevs/$i"
                ;;
        esac
        i=$((i + 1))
    done
done

tool ibv_devices ibv_devices
tool ibv_devinfo ibv_devinfo -v
tool rdma_link rdma -j link show
tool rdma_resource rdma -j resource show
tool perftest ib_write_bw --version
tool iproute2 rdma -V
# shellcheck disable=SC2016
tool dpkg dpkg-query -W -f '${Package} ${Version}\n' iproute2 libibverbs1 ibverbs-providers librdmacm1 perftest
tool rpm rpm -q --qf '%{NAME} %{VERSION}-%{RELEASE}\n' iproute libibverbs librdmacm rdma-core perftest
part end
