# NFS for hosts.sh, which sources it, on the hosts of hosts-kernels.sh.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154

# Seconds; a server's usual 90 would make the matrix wait. Clients need some of
# the grace to find that a dead server is back.
lease=10
grace=10
grace_again=30

nfs_missing() {
  kernels_missing
  type -P mount.nfs >/dev/null || echo nfs-common
  type -P rpc.nfsd >/dev/null || echo nfs-kernel-server
  type -P rpcbind >/dev/null || echo rpcbind
}

nfs_set_up() {
  if [[ $1 == s ]]; then
    on s nfs_server "$grace" || return
    grace=$grace_again
  else
    on "$1" nfs_client
  fi
}

# nfs_mount HOST [OPTIONS FOLDER]
nfs_mount() {
  local from=:$archive
  [[ $version == 3 ]] || from=:/
  on "$1" mount -t nfs -o "vers=$version${2:+,$2}" "$network.1$from" "${3-$archive}"
}
