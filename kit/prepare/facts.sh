# Reads what a preparation must know of a node; changes nothing. $1 the node's own address on the RDMA network,
# $2 packages, $3 units, $4 containers, $5 programs (words, separated by blanks), then the paths of files to read whole.
# Sections start with "@@kit NAME"; a tool's output ends with "@@exit CODE", or is "@@missing".
LC_ALL=C
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export LC_ALL PATH
limit=
if command -v timeout >/dev/null 2>&1; then limit="timeout 10"; fi
address=$1 packages=$2 units=$3 containers=$4 programs=$5
shift 5

part() { printf '\n@@kit %s\n' "$1"; }
tool() {
    part "$1"
    shift
    if command -v "$1" >/dev/null 2>&1; then
        $limit "$@" </dev/null 2>&1
        printf '\n@@exit %s\n' "$?"
    else
        echo '@@missing'
    fi
}
value() { if [ -r "$2" ]; then v=; { IFS= read -r v <"$2"; } 2>/dev/null; printf '%s %s\n' "$1" "$v"; fi; }
mtime() { stat -c %Y -- "$1" 2>/dev/null || echo 0; }

part clock; date +%s%N
part user; id -u
# what only root sees is read by sudo, where that asks for nothing
root=
part sudo
if ! command -v sudo >/dev/null 2>&1; then
    echo missing
elif sudo -n true 2>/dev/null; then
    echo yes
    if [ "$(id -u)" != 0 ]; then root="sudo -n"; fi
else
    echo password
fi
part address; echo "$address"
part os; cat /etc/os-release 2>/dev/null || cat /usr/lib/os-release 2>/dev/null
read -r kernel </proc/sys/kernel/osrelease
part kernel; echo "$kernel"
part inside; if [ -e /.dockerenv ] || [ -e /run/.containerenv ]; then echo container; fi
part systemd; if [ -d /run/systemd/system ]; then echo yes; fi
part tools
for t in apt-get dnf yum curl wget gpg modprobe update-initramfs dracut dkms systemctl udevadm python3 busybox nc bash \
    mount.nfs podman docker nerdctl nvidia-container-cli; do
    if command -v "$t" >/dev/null 2>&1; then echo "$t"; fi
done
part executables; for f in $programs; do if [ -x "$f" ]; then echo "$f"; fi; done
part modules; cat /proc/modules 2>/dev/null
part erdma
value version /sys/module/erdma/version
value refcount /sys/module/erdma/refcnt
for f in /sys/module/erdma/parameters/*; do value "param.${f##*/}" "$f"; done
tool modinfo modinfo -k "$kernel" erdma
part devices
for d in /sys/class/infiniband/*; do if [ -d "$d" ]; then value "${d##*/}" "$d/node_type"; fi; done
part dev_files; for f in /dev/infiniband/*; do if [ -e "$f" ]; then echo "$f"; fi; done
tool rdma_qp rdma -j resource show qp
tool rdma_cm rdma -j resource show cm_id
part holders
{ $root ls -l /proc/[0-9]*/fd 2>/dev/null | grep -e '^/proc/' -e ' /dev/infiniband/uverbs'; } | while read -r first rest; do
    case $first in
        /proc/*) p=${first#/proc/}; p=${p%%/*} ;;
        *) value "$p" "/proc/$p/comm" ;;
    esac
done
part listening
cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | while read -r _ local _ state _; do
    if [ "$state" = 0A ]; then echo "$((0x${local##*:}))"; fi
done
part modprobe_d; grep -Hs '^[[:space:]]*options[[:space:]][[:space:]]*erdma' /etc/modprobe.d/*.conf
part boot
image=
for f in "/boot/initrd.img-$kernel" "/boot/initramfs-$kernel.img"; do if [ -e "$f" ]; then image=$f; fi; done
if [ -n "$image" ]; then echo "initramfs $(mtime "$image")"; fi
echo "modprobe_file $(mtime /etc/modprobe.d/zz-erdma-kit.conf)"
part memlock; ulimit -l
tool ip_address ip -j address show
tool ip_link ip -j -d link show
part mounts; cat /proc/mounts
# words on purpose
# shellcheck disable=SC2086,SC2016
tool dpkg dpkg-query -W -f '${Package}\t${Version}\t${db:Status-Status}\n' $packages
tool dpkg_audit dpkg --audit
# shellcheck disable=SC2086
tool policy apt-cache policy $packages
# shellcheck disable=SC2086
tool rpm rpm -q --qf '%{NAME}\t%{VERSION}-%{RELEASE}\tinstalled\n' $packages
tool dkms dkms status
part units
if command -v systemctl >/dev/null 2>&1; then
    for u in $units; do
        e=$($limit systemctl is-enabled "$u" 2>/dev/null) || e=${e:-no}
        echo "$u $e $($limit systemctl is-active "$u" 2>/dev/null)"
    done
fi
part containers
# shellcheck disable=SC2086
for t in podman docker nerdctl; do
    command -v "$t" >/dev/null 2>&1 || continue
    for c in $containers; do
        $root $limit "$t" inspect --type container \
            -f "$t $c {{.State.Status}} {{index .Config.Labels \"erdma-kit\"}}" "$c" 2>/dev/null
    done
done
part stacks
for t in podman docker nerdctl; do
    command -v "$t" >/dev/null 2>&1 || continue
    for c in $containers; do
        # the container's own home
        # shellcheck disable=SC2016,SC2086
        s=$($root $limit "$t" exec "$c" sh -c 'cat "$HOME/.erdma-kit-stack"' 2>/dev/null) && echo "$c $s"
    done
done
part gpus; for f in /proc/driver/nvidia/gpus/*; do if [ -e "$f" ]; then echo "${f##*/}"; fi; done
part files
for f in "$@"; do
    if [ -f "$f" ] && [ -r "$f" ]; then
        printf '@@file %s %s\n' "$(wc -c <"$f")" "$f"
        base64 <"$f" | tr -d '\n'
        echo
    fi
done
part end
