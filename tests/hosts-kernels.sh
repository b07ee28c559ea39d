# Hosts for hosts.sh, which sources it: three kernels as ordinary programs
# (user-mode-linux) at one hub, s with an ext4 image that it exports, a and b its
# clients. What serves the image, and mounts it, is in hosts-nfs.sh and
# hosts-cifs.sh, as nfs_set_up and so on.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154

network=10.99.0

kernels_missing() {
  type -P linux.uml >/dev/null || echo user-mode-linux
  type -P uml_switch >/dev/null || echo uml-utilities
  type -P mkfs.ext4 >/dev/null || echo e2fsprogs
  type -P modprobe >/dev/null || echo kmod
  type -P ip >/dev/null || echo iproute2
}

kernels_up() {
  local modules
  modules=/usr/lib/uml/modules/$(linux.uml --version)
  mkdir -p "$work/share/lib/modules"
  ln -s "$modules" "$work/share/lib/modules/"
  printf '#!/bin/sh\nexec modprobe -d %s "$@"\n' "$share" >"$work/share/modprobe"
  chmod +x "$work/share/modprobe"
  printf '%s\n' '127.0.0.1 localhost' "$network.1 s" "$network.2 a" "$network.3 b" >"$work/share/names"
  truncate -s 64M "$work/image"
  mkfs.ext4 -q "$work/image"
  # It ends with its input.
  mkfifo "$work/never"
  uml_switch -hub -unix "$work/hub" 0<>"$work/never" >"$work/hub.log" 2>&1 &
  echo "$!" >"$work/hub.pid"
  disown
  eventually test -S "$work/hub" || broken 'no hub'
  kernels_boot s
  kernels_boot a
  kernels_boot b
}
kernels_down() {
  local host
  for host in a b s; do kernels_crash "$host"; done
  kill "$(<"$work/hub.pid")" 2>/dev/null || true
}

# kernels_boot HOST: starts its kernel, and waits until it takes commands.
kernels_boot() {
  local address disk=() from
  case $1 in
    s) address=1 disk=("ubd0=$work/image") ;;
    a) address=2 ;;
    b) address=3 ;;
  esac
  rm -f "$work/$1".{to,from}
  mkfifo "$work/$1".{to,from}
  # Its memory is a file without a name: TMPDIR may be a disk. It makes its
  # descriptors non-blocking, so nobody shares them.
  TMPDIR=/dev/shm setsid linux.uml "umid=dcelock-$$-$1" "uml_dir=$work" mem=192M \
    rootfstype=hostfs rootflags=/ ro quiet con=null con0=null,fd:1 ssl=null ssl0=fd:3,fd:4 \
    "${disk[@]}" "eth0=daemon,02:00:00:00:00:0$address,unix,$work/hub" "init=$folder/hosts-guest.sh" \
    "name=$1" "address=$network.$address" "share=$work/share" \
    3<>"$work/$1.to" 4<>"$work/$1.from" >"$work/$1.console" 2>&1 </dev/null &
  echo "$!" >"$work/$1.kernel"
  disown
  exec {from}<>"$work/$1.from"
  read -r -t 60 -u "$from" _ || broken "the kernel of $1 does not come up: $(tail -n 3 "$work/$1.console")"
  setsid bash -c "$deliver" "$work/share" <&"$from" &
  echo "$!" >"$work/$1.deliver"
  disown
  exec {from}<&-
  "${kind}_set_up" "$1" >"$work/$1.set-up" 2>&1 || broken "no $engine on $1: $(<"$work/$1.set-up")"
}
# Hands what a host says of its commands to those who wait for it.
# shellcheck disable=SC2016
deliver='while read -r request status; do [[ ! -p $0/$request.done ]] || echo "$status" >"$0/$request.done"; done'

kernels_crash() {
  local kernel
  [[ -s $work/$1.kernel ]] || return 0
  kernel=$(<"$work/$1.kernel")
  kill -KILL -- "-$kernel" 2>/dev/null || kill -KILL "$kernel" 2>/dev/null || true
  [[ ! -s $work/$1.deliver ]] || kill "$(<"$work/$1.deliver")" 2>/dev/null || true
  eventually has_ended "$kernel" || broken "the kernel of $1 does not end"
  rm -f "$work/$1".{kernel,deliver}
}
# The other processes of its group are traced by this one.
kernels_freeze() { kill -STOP "$(<"$work/$1.kernel")"; }
kernels_thaw() { kill -CONT "$(<"$work/$1.kernel")"; }
kernels_unplug() { on "$1" ip link set eth0 down; }
kernels_plug() { on "$1" ip link set eth0 up; }

kernels_ask() { echo "$2" >"$work/$1.to"; }
