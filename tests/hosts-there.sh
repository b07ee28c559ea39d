# What hosts.sh runs on a host. Each of its commands there sources this first,
# after variables: share, own (folders), archive, root, lock and config.
# shellcheck shell=bash
# shellcheck disable=SC2016,SC2154

set -euo pipefail
export LC_ALL=C
unset DCE_CONFIG_FILE DCE_REPO_ROOT DCE_SCRAPE_LOCK_FILE DCE_SCRAPE_LOCK_HELD DCE_SCRAPE_LOCK_WAIT DCE_SKIP_SCRAPE_LOCK

# tool WORDS...: makes w the words that go before a command.
tool() {
  case $1 in
    dcelock) w=("$share/dcelock" --config "$config" "${@:2}") ;;
    flock) w=("$@" "$lock") ;;
    *) w=("$@") ;;
  esac
}
lives() { kill -0 "$1" 2>/dev/null; }
# until_ COMMAND...: waits for what has no event; some seconds at most.
until_() {
  local deadline=$((SECONDS + 10)) pause
  exec {pause}<> <(:)
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    read -r -t 0.02 -u "$pause" _ || true
  done
}

# begin NAME TOOL...: runs, under these words, a command that stays until it is
# told to end. False, with its messages, if it does not run.
stay='echo $$ >"$0.up"; echo up >"$0.news"; read -r _ <"$0.go"'
begin() {
  local at=$own/$1 word=silent news
  launch "$@"
  exec {news}<>"$at.news"
  read -r -t 100 -u "$news" word || true
  exec {news}<&-
  [[ $word == up ]] || { cat "$at.err" >&2; return 1; }
}
launch() {
  local at=$own/$1
  tool "${@:2}"
  rm -f "$at".*
  mkfifo "$at.go" "$at.news"
  {
    "${w[@]}" bash -c "${run:-$stay}" "$at" >"$at.out" 2>"$at.err" </dev/null &
    echo "$!" >"$at.pid"
    status=0
    wait "$!" || status=$?
    echo "$status" >"$at.status"
    echo ended >"$at.news"
  } >/dev/null 2>&1 &
}
# queue NAME TOOL...: the same for one that is to wait; once it has said so. That
# it then stands in a server's queue shows nowhere.
queue() {
  launch "$@"
  until_ test -s "$own/$1.err" -o -e "$own/$1.up" -o -e "$own/$1.status" || true
  sleep 0.5
  [[ ! -e $own/$1.up && ! -e $own/$1.status ]]
}
# began NAME: waits until what queued runs its command.
began() {
  local word news
  exec {news}<>"$own/$1.news"
  read -r -t 150 -u "$news" word && [[ $word == up ]] && return
  cat "$own/$1.err" >&2
  return 1
}
# finish NAME: tells the command to end, and waits for its wrapper to do so.
finish() {
  echo >"$own/$1.go"
  ended "$1"
}
ended() {
  local news
  exec {news}<>"$own/$1.news"
  [[ -s $own/$1.status ]] || read -r -t 30 -u "$news" _ || { echo "$1 does not end" >&2; return 1; }
  until_ test -s "$own/$1.status"
  return "$(<"$own/$1.status")"
}
# slay NAME pid|up SIGNAL: signals the wrapper or the command.
slay() { kill "-$3" "$(<"$own/$1.$2")"; }
messages() { cat "$own/$1.err" >&2; }

# try TOOL...: whether a run starts; prints its status.
try() {
  local ran=$own/ran.$BASHPID
  tool "$@"
  status=0
  "${w[@]}" touch "$ran" || status=$?
  echo "$status"
  [[ -e $ran ]] && rm "$ran"
}
# count ROUNDS: that many runs, each of which adds one to the number in a file.
count() {
  local round
  for ((round = 0; round < $1; round++)); do
    "$share/dcelock" --config "$config" --wait 60 -q -- bash -c 'echo $(($(<"$0") + 1)) >"$0"' "$root/number"
  done
}
clear() {
  local file
  for file in "$own"/*.pid "$own"/*.up; do
    [[ ! -s $file ]] || kill -KILL "$(<"$file")" 2>/dev/null || true
  done
  for file in "$own"/*.news; do
    [[ ! -p $file ]] || { exec {news}<>"$file"; until_ test -s "${file%.news}.status" || true; }
  done
  rm -f "$own"/*.{pid,up,news,go,err,out,status}
}

# What NFS remembers outlives the kernel.
nfs_memory() {
  local memory
  memory=$share/nfs.$(hostname)
  mkdir -p "$memory"/{sm,sm.bak,v4recovery,rpc_pipefs} /run/rpcbind
  touch "$memory"/{etab,rmtab}
  mount --bind "$memory" /var/lib/nfs
}
nfs_server() {
  nfs_memory
  "$share/modprobe" nfsd
  mount -t nfsd nfsd /proc/fs/nfsd
  echo "$lease" >/proc/fs/nfsd/nfsv4leasetime
  echo "$1" >/proc/fs/nfsd/nfsv4gracetime
  echo "$1" >/proc/sys/fs/nfs/nlm_grace_period
  echo 5 >/proc/sys/fs/nfs/nlm_timeout # what the other is rounded up to
  mount /dev/ubda "$archive"
  rpcbind
  rpc.statd
  exportfs -i -o rw,no_root_squash,no_subtree_check,fsid=0 "$network.0/24:$archive"
  rpc.nfsd 4
  rpc.mountd
}
nfs_client() {
  nfs_memory
  "$share/modprobe" nfsv3
  "$share/modprobe" nfsv4
  rpcbind
  rpc.statd
}

# cifs_server LINE...: with these of smb.conf(5) for the share. All that smbd writes
# but the archive is in the kernel's memory.
cifs_server() {
  local state=/run/samba folder
  mount /dev/ubda "$archive"
  {
    printf '%s\n' '[global]' 'server role = standalone' 'passdb backend = tdbsam' 'server min protocol = SMB3_11' \
      'smb ports = 445' 'disable netbios = yes' 'disable spoolss = yes' 'load printers = no' "log file = $state/log"
    for folder in 'private dir' 'state directory' 'cache directory' 'lock directory' 'pid directory' 'ncalrpc dir'; do
      mkdir -p "$state/${folder% *}"
      echo "$folder = $state/${folder% *}"
    done
    printf '%s\n' '[archive]' "path = $archive" 'read only = no' "$@"
  } >"$state.conf"
  printf '%s\n' "$password" "$password" | smbpasswd -c "$state.conf" -L -s -a root
  smbd -D -s "$state.conf" -l "$state"
}
cifs_client() { "$share/modprobe" cifs; }

gluster_server() {
  ip link set lo up
  ip address add 10.98.0.1/32 dev lo
  glusterd
  gluster --mode=script volume create v "10.98.0.1:$1" force
  gluster --mode=script volume start v
}
gluster_end() {
  local process
  for process in /proc/[0-9]*; do
    [[ ! $process/ns/mnt -ef /proc/self/ns/mnt || $(<"$process/comm") != glusterfs ]] || kill -KILL "${process#/proc/}"
  done 2>/dev/null
  clear
  umount -l "$archive"
}
gluster_signal() {
  local process
  for process in /proc/[0-9]*; do
    [[ ! $process/ns/net -ef /proc/self/ns/net || $(<"$process/comm") != glusterfsd ]] || kill "-$1" "${process#/proc/}"
  done 2>/dev/null
}
