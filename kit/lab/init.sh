#!/bin/busybox sh
# PID 1 of a lab guest. Kernel command line: lab.id=1|2 lab.rdma=siw|rxe|erdma
# With erdma the guest stays bare: no module, MTU 1500, the kernel's own limit of locked memory.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
BB=/bin/busybox
$BB mount -t proc proc /proc
$BB mount -t sysfs sysfs /sys
$BB mount -t devtmpfs devtmpfs /dev
$BB mkdir -p /dev/pts /dev/shm /run/sshd /tmp
$BB mount -t devpts devpts /dev/pts
$BB mount -t tmpfs tmpfs /dev/shm
$BB ln -s /proc/self/fd /dev/fd
id=1 rdma=siw
for word in $($BB cat /proc/cmdline); do
    case $word in lab.id=*) id=${word#*=} ;; lab.rdma=*) rdma=${word#*=} ;; esac
done
# busybox's shell takes its own ip, modinfo and modprobe for the real ones
[ "$rdma" = erdma ] && $BB ln -sf bash /usr/bin/sh
# siw counts registered memory against it, even for root
[ "$rdma" = erdma ] || ulimit -l unlimited
$BB hostname "lab$id"
printf '127.0.0.1 localhost\n10.77.0.1 lab1\n10.77.0.2 lab2\n' >/etc/hosts
$BB ip link set lo up

modprobe virtio_pci
modprobe virtio_net
turns=0
while [ ! -e /sys/class/net/eth1 ] && [ $turns -lt 250 ]; do $BB usleep 20000; turns=$((turns + 1)); done
$BB ip addr add 10.0.2.15/24 dev eth0
$BB ip link set eth0 up
if [ "$rdma" = erdma ]; then $BB ip link set eth1 mtu 1500; else $BB ip link set eth1 mtu 9000; fi
$BB ip addr add "10.77.0.$id/24" dev eth1
$BB ip link set eth1 up
case $rdma in
    erdma) /usr/sbin/sshd -h "/etc/ssh/host_key_$id" -o UsePAM=yes ;;
    *) /usr/sbin/sshd -h "/etc/ssh/host_key_$id" ;;
esac

modprobe ib_uverbs
modprobe rdma_ucm
# One device only: with two on a network interface, RDMA_CM takes the other one without a word.
case $rdma in
    siw) modprobe siw && rdma link add siw0 type siw netdev eth1 ;;
    rxe) modprobe rdma_rxe && rdma link add rxe0 type rxe netdev eth1 ;;
esac
case $rdma/$(rdma link show) in
    erdma/) echo "lab: bare, ready" ;;
    *"state ACTIVE"*) echo "lab: rdma ready" ;;
    *) echo "lab: no rdma device" ;;
esac
# Waiting for any child also takes the orphans that end.
while :; do wait; $BB sleep 3600; done
