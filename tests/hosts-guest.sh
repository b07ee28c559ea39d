#!/bin/bash
# shellcheck disable=SC2154
# Process 1 of a test kernel (hosts-kernels.sh). Its root is the machine's own, read
# only; what it may write is in its memory. The kernel hands over name=, address=
# and share= (a folder of the machine) as variables. What it is to run comes as
# files in the share, and their names by the serial line, on which "NAME STATUS"
# goes back.
mount -t proc proc /proc
mount -t sysfs sysfs /sys
ln -s /proc/self/fd /dev/fd
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /mnt
mkdir -p /mnt/share /mnt/archive
mkdir -m 1777 /run/dcelock
mount -t hostfs -o "$share" none /mnt/share

# rpc.statd looks up names, and answers nobody meanwhile.
mount --bind /mnt/share/names /etc/hosts

echo /mnt/share/modprobe >/proc/sys/kernel/modprobe
hostname "$name"
ip link set lo up
ip address add "$address/24" dev eth0
ip link set eth0 up

exec 3<>/dev/ttyS0
stty -F /dev/ttyS0 raw -echo
echo 'up 0' >&3
while read -r request <&3; do
  {
    status=0
    bash "/mnt/share/$request" </dev/null >"/mnt/share/$request.out" 2>"/mnt/share/$request.err" 3>&- || status=$?
    echo "$request $status" >&3
  } &
done
