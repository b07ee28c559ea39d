#!/usr/bin/env bash
# Several hosts with one archive root: runs dcelock on hosts that share a folder
# by a network file system, and prints a Markdown table, engine by promise. The
# experiments are in hosts-rows.sh.
#   hosts.sh                  nfs4.2, nfs3 and gluster, as far as they are installed
#   hosts.sh nfs4.2 cifs      these; nfs4.0, nfs4.1 and cifs-kernel-oplocks can be
#                             named as well
#   ROWS=EXPRESSION           only rows whose labels match
#   VERBOSE=1                 each cell as soon as it is known
# It needs root, and opens no connection but to its own hosts.
# Exit status: 1 when dcelock is not what it promises, 2 when an experiment
# broke, 3 when no engine is there.

# Functions are called by the experiments and by traps.
# shellcheck disable=SC2317
set -euo pipefail
export LC_ALL=C
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$repository/tests
DCELOCK=$(realpath "${DCELOCK:-$repository/dcelock}")
[[ -x $DCELOCK ]] || { echo "no binary at $DCELOCK; build it with: make -C $repository" >&2; exit 1; }
((EUID == 0)) || { echo "$0 mounts file systems: it needs root" >&2; exit 1; }

broken() { echo "broken: $*" >&2; exit 2; }
eventually() {
  local deadline=$((SECONDS + 10))
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    pause 0.02
  done
}
pause() { read -r -t "$1" -u "$silence" _ || true; }
exec {silence}<> <(:)
has_ended() { ! grep -qsv '^State:.*Z' <(grep -s ^State: "/proc/$1/status"); }

# The same paths on every host.
archive=/mnt/archive
share=/mnt/share
own=/run/dcelock
# shellcheck source=tests/hosts-kernels.sh
. "$folder/hosts-kernels.sh"
# shellcheck source=tests/hosts-nfs.sh
. "$folder/hosts-nfs.sh"
# shellcheck source=tests/hosts-cifs.sh
. "$folder/hosts-cifs.sh"
# shellcheck source=tests/hosts-gluster.sh
. "$folder/hosts-gluster.sh"

# What kind of hosts an engine has, and what it shares between them: kernels_boot,
# nfs_mount and so on.
boot() { "${hosts}_boot" "$1"; }
crash() { "${hosts}_crash" "$1"; }
freeze() { "${hosts}_freeze" "$1"; }
thaw() { "${hosts}_thaw" "$1"; }
unplug() { "${hosts}_unplug" "$1"; }
plug() { "${hosts}_plug" "$1"; }
mount_on() { "${kind}_mount" "$@"; }

# on HOST COMMAND WORD...: runs a command, or a function of hosts-there.sh, there.
on() {
  local host=$1 request=$1.$BASHPID.$SRANDOM status answer
  shift
  mkfifo "$work/share/$request.done"
  exec {answer}<>"$work/share/$request.done"
  {
    declare -p share own archive network lease password root lock config
    [[ -z ${run-} ]] || declare -p run
    echo ". $share/there.sh"
    printf '%q ' "$@"
  } >"$work/share/$request"
  "${hosts}_ask" "$host" "$request"
  read -r -t "${patience:-60}" -u "$answer" status || { status=124; echo "no answer from $host to: $*" >&2; }
  exec {answer}<&-
  [[ ! -s $work/share/$request.out ]] || cat "$work/share/$request.out"
  [[ ! -s $work/share/$request.err ]] || cat "$work/share/$request.err" >&2
  rm -f "$work/share/$request"{,.done,.out,.err}
  return "$status"
}

labels=() promises=() experiments=()
# row LABEL PROMISE EXPERIMENT...: PROMISE, a regular expression, is what is
# promised for its cells.
row() {
  labels+=("$1")
  promises+=("$2")
  experiments+=("${*:3}")
}
# shellcheck source=tests/hosts-rows.sh
. "$folder/hosts-rows.sh"

work=$(mktemp -d)
chmod 755 "$work"
kind='' hosts='' cell=''
end_cell() {
  [[ -n $cell ]] || return 0
  kill -KILL -- "-$cell" 2>/dev/null || true
  wait "$cell" 2>/dev/null || true
  cell=
}
end_all() {
  end_cell
  [[ -z $hosts ]] || "${hosts}_down" || true
  rm -rf "$work" || { sleep 1; rm -rf "$work"; } # what was killed may have written once more
}
trap end_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# run_rows: every experiment, each in a process group and an archive of its own.
run_rows() {
  local i promise text
  for i in "${!labels[@]}"; do
    [[ ${labels[i]} =~ ${ROWS-} ]] || continue
    promise=${promises[i]}
    root=$archive/$i
    lock=$root/.dce-scrape.lock
    config=$share/$engine.$i.json
    printf '{"archive_root": "%s"}\n' "$root" >"$work/share/$engine.$i.json"
    set -m
    (set -euo pipefail; on a mkdir "$root"; ${experiments[i]}) >"$work/cell" 2>"$work/messages" </dev/null &
    cell=$!
    set +m
    if wait "$cell"; then
      text=$(<"$work/cell")
      [[ $text =~ ^($promise)$ ]] || {
        echo "not what is promised on $engine: ${labels[i]}: $text, not $promise" >&2
        sed 's/^/  | /' "$work/messages" >&2
        ((exit_status != 0)) || exit_status=1
        text="**$text**"
      }
    else
      text=broken
      echo "broken on $engine: ${labels[i]}" >&2
      sed 's/^/  | /' "$work/messages" >&2
      exit_status=2
    fi
    end_cell
    tidy
    cells["$engine $i"]=$text
    [[ -z ${VERBOSE-} ]] || echo "$engine: ${labels[i]}: $text" >&2
  done
}
tidy() {
  local host
  for host in a b s; do
    patience=20 on "$host" clear || true
  done
}

exit_status=0
engines=("$@")
((${#engines[@]})) || engines=(nfs4.2 nfs3 gluster)
declare -A cells=()
tried=()
root='' lock='' config=''
for engine in "${engines[@]}"; do
  case $engine in
    nfs*) kind=nfs hosts=kernels version=${engine#nfs} ;;
    cifs | cifs-kernel-oplocks) kind=cifs hosts=kernels ;;
    gluster) kind=gluster hosts=gluster ;;
    *) echo "usage: $0 [nfs4.2|nfs4.1|nfs4.0|nfs3|gluster|cifs|cifs-kernel-oplocks]..." >&2; exit 64 ;;
  esac
  mapfile -t missing < <("${kind}_missing")
  if ((${#missing[@]})); then
    echo "not tried: $engine; get what it needs with: apt-get install ${missing[*]}" >&2
    hosts=
    continue
  fi
  begun=$SECONDS
  mkdir -p "$work/share"
  cp "$DCELOCK" "$work/share/dcelock"
  cp "$folder/hosts-there.sh" "$work/share/there.sh"
  "${hosts}_up"
  mount_on a
  mount_on b
  tried+=("$engine")
  run_rows
  "${hosts}_down"
  hosts=
  rm -rf "${work:?}"/*
  echo "$engine took $((SECONDS - begun)) s" >&2
done
((${#tried[@]})) || exit 3

printf '| |%s\n' "$(printf ' %s |' "${tried[@]}")"
printf '| --- |%s\n' "$(printf ' --- |%.0s' "${tried[@]}")"
for i in "${!labels[@]}"; do
  [[ ${labels[i]} =~ ${ROWS-} ]] || continue
  line="| ${labels[i]} |"
  for engine in "${tried[@]}"; do line+=" ${cells["$engine $i"]} |"; done
  echo "$line"
done
exit "$exit_status"
