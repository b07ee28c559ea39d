# GlusterFS for hosts.sh, which sources it: a volume on a loopback of its own,
# mounted twice by FUSE. The hosts a and b are mount and UTS namespaces, each with
# a boot id of its own; the servers are in one more, s.
# shellcheck shell=bash
# shellcheck disable=SC2154

gluster_missing() {
  type -P glusterd >/dev/null || echo glusterfs-server
  type -P mount.glusterfs >/dev/null || echo glusterfs-client
  type -P ip >/dev/null || echo iproute2
}

gluster_up() {
  [[ -e /dev/fuse ]] || broken 'no /dev/fuse'
  gluster_host s '' --net
  gluster_host a "$(<"$work/s.space")"
  gluster_host b "$(<"$work/s.space")"
  on s gluster_server "$work/brick" >"$work/s.set-up" 2>&1 || broken "no GlusterFS: $(<"$work/s.set-up")"
}
# gluster_host HOST PID FLAGS...: makes the host, in the network of process PID.
gluster_host() {
  local host=$1 into=() came
  [[ -z $2 ]] || into=(nsenter --net -t "$2")
  mkdir -p "$work/share" "$work/brick"
  cat /proc/sys/kernel/random/uuid >"$work/share/$host.boot_id"
  mkfifo "$work/$host.came"
  setsid "${into[@]}" unshare --mount --uts --propagation private "${@:3}" \
    bash -c "$gluster_init" "$work/$host.came" "$host" "$work/share" >"$work/$host.console" 2>&1 </dev/null &
  echo "$!" >"$work/$host.space"
  disown
  exec {came}<>"$work/$host.came"
  read -r -t 10 -u "$came" _ || broken "no namespace for $host: $(<"$work/$host.console")"
  exec {came}<&-
}
# shellcheck disable=SC2016
gluster_init='set -e
  for folder in /mnt /run /var/lib/glusterd /var/log/glusterfs; do mount -t tmpfs tmpfs "$folder"; done
  mkdir -p /mnt/share /mnt/archive /run/gluster
  mkdir -m 1777 /run/dcelock
  mount --bind "$2" /mnt/share
  mount --bind "/mnt/share/$1.boot_id" /proc/sys/kernel/random/boot_id
  hostname "$1"
  echo up >"$0"
  exec sleep infinity'

# Whatever was started there is in the network namespace of these hosts alone.
gluster_down() {
  local network
  [[ -s $work/s.space ]] && network=$(readlink "/proc/$(<"$work/s.space")/ns/net") || return 0
  [[ $network != "$(readlink /proc/self/ns/net)" ]] || return 0
  eventually gluster_none_left "$network" || echo 'some of GlusterFS is left running' >&2
  rm -f "$work"/?.space
}
# What is killed may just have started something.
gluster_none_left() {
  local process state left=()
  for process in /proc/[0-9]*; do
    [[ $(readlink "$process/ns/net") == "$1" ]] || continue
    state=$(grep -s ^State: "$process/status") || continue
    [[ $state == *Z* ]] || left+=("${process#/proc/}")
  done
  ((${#left[@]})) || return 0
  kill -KILL "${left[@]}" 2>/dev/null || true
  return 1
}

# crash HOST: its mount ends as with its machine, and so does what ran there.
gluster_crash() { on "$1" gluster_end; }
gluster_boot() { :; }
gluster_freeze() { on s gluster_signal STOP; }
gluster_thaw() { on s gluster_signal CONT; }
gluster_mount() { on "$1" mount -t glusterfs 10.98.0.1:/v "$archive"; }

gluster_ask() {
  {
    status=0
    setsid nsenter --mount --uts --net -t "$(<"$work/$1.space")" \
      bash "$share/$2" </dev/null >"$work/share/$2.out" 2>"$work/share/$2.err" || status=$?
    echo "$status" >"$work/share/$2.done"
  } &
}
