# CIFS (SMB 3.1.1) for hosts.sh, which sources it, on the hosts of hosts-kernels.sh:
# smbd serves, with its defaults or, as cifs-kernel-oplocks, in a way that lets the
# server's own programs take part. Its only user is known to these hosts alone.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154

password=throw-away

cifs_missing() {
  kernels_missing
  type -P smbd >/dev/null || echo samba
  type -P mount.cifs >/dev/null || echo cifs-utils
}

cifs_set_up() {
  local more=()
  [[ $engine == cifs ]] || more=('kernel oplocks = yes')
  if [[ $1 == s ]]; then on s cifs_server "${more[@]}"; else on "$1" cifs_client; fi
}

# cifs_mount HOST [OPTIONS FOLDER]
cifs_mount() {
  on "$1" mount -t cifs -o "vers=3.1.1,username=root,password=$password${2:+,$2}" "//$network.1/archive" "${3-$archive}"
}
