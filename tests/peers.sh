#!/usr/bin/env bash
# Compares dcelock with other tools that run a command under a lock, and prints
# a Markdown table. Each cell is the outcome of an experiment (peers-rows.sh).
#   peers.sh          all tools that are installed
#   peers.sh --check  dcelock alone
# Exit status: 1 when dcelock is not what it promises, 2 when an experiment
# broke.

# Functions are called by the experiments and by traps.
# shellcheck disable=SC2317
set -euo pipefail
export LC_ALL=C
# shellcheck source=tests/smoke-lib.sh
. "$(dirname "$0")/smoke-lib.sh"
folder=$repository/tests
DCELOCK=$(realpath "$DCELOCK")

peers=(dcelock flock lckdo setlock chpst with-lock-ex script)
declare -A title=([flock]='flock(1)' [chpst]='chpst -l/-L' [script]='bash functions')
declare -A package=([lckdo]=moreutils [setlock]=daemontools [chpst]=runit [with-lock-ex]=chiark-utils-bin)
# What each is told to do one thing or another. Where one has no words for it,
# it is tried with those for "now", to fail at once.
declare -A flags=(
  [dcelock now]=-n [dcelock wait]='--wait forever' [dcelock limit]='--wait 1' [dcelock status]=--status
  [dcelock close]=--close [dcelock chosen]='-E 77' [dcelock success]='-q -E 0'
  [flock now]=-n [flock wait]='' [flock limit]='-w 1' [flock close]='-n -o' [flock chosen]='-n -E 77'
  [flock success]='-n -E 0' [flock exec]='-n -F' [flock shared]='-n -s' [flock fcntl]='-n --fcntl'
  [lckdo now]='' [lckdo wait]=-w [lckdo limit]='-W 1' [lckdo status]=-t [lckdo exec]=-e [lckdo shared]=-s
  [lckdo existing]=-n [lckdo number]='-E 7'
  [setlock now]=-n [setlock wait]=-N [setlock success]=-nx
  [chpst now]=-L [chpst wait]=-l
  [with-lock-ex now]=-f [with-lock-ex wait]=-w [with-lock-ex limit]='-f -t 1' [with-lock-ex status]=-l
  [with-lock-ex success]=-q
  [script now]='' [script status]=--status
)

# words FORM LOCK: makes w the words that go before a command.
words() {
  local form config_of=${2%/*}.json with=()
  read -ra form <<<"${flags[$peer $1]-${flags[$peer now]}}"
  if [[ ! -e $config_of ]]; then
    config_of=$config
    with=(env "DCE_SCRAPE_LOCK_FILE=$2")
  fi
  case $peer in
    dcelock) w=("${with[@]}" "$DCELOCK" "${form[@]}" --config "$config_of" --) ;;
    script) w=("${with[@]}" "$folder/script-lock.sh" "${form[@]}" --config "$config_of" --) ;;
    *) w=("$peer" "${form[@]}" "$2") ;;
  esac
}

labels=() promises=() experiments=()
# row LABEL PROMISE EXPERIMENT...: PROMISE, a regular expression, is what
# dcelock promises for its cell.
row() {
  labels+=("$1")
  promises+=("$2")
  experiments+=("${*:3}")
}
# shellcheck source=tests/peers-rows.sh
. "$folder/peers-rows.sh"

case ${1-} in
  '') ;;
  --check) peers=(dcelock) ;;
  --cell) # one experiment, for the loop below, which cleans up
    trap - EXIT
    peer=$2
    cp "$config" "$archive_root.json"
    mkfifo "$work/never"
    "${@:3}"
    exit
    ;;
  *)
    echo "usage: $0 [--check]" >&2
    exit 64
    ;;
esac

# What an experiment leaves running is in its own process group.
declare -A groups=()
end_group() {
  kill -KILL -- "-${groups[$1]}" 2>/dev/null || true
  unset "groups[$1]"
}
end_all() {
  local peer
  for peer in "${!groups[@]}"; do end_group "$peer"; done
  rm -rf "$work" || rm -rf "$work" # what was killed may have written once more
}
trap end_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

begin_cell() {
  timeout -k 1 20 "$folder/peers.sh" --cell "$@" >"$work/$1.cell" 2>"$work/$1.messages" &
  groups[$1]=$!
}
end_cell() {
  local label=${labels[i]} promise=${promises[i]} cell
  if wait "${groups[$1]}"; then
    cell=$(<"$work/$1.cell")
  else
    cell=broken
    exit_status=2
    echo "broken with $1: $label" >&2
    cat "$work/$1.messages" >&2
  fi
  end_group "$1"
  if [[ $1 == dcelock && $cell != broken && ! $cell =~ ^($promise)$ ]]; then
    echo "dcelock is not what it promises: $label: $cell, not $promise" >&2
    ((exit_status != 0)) || exit_status=1
  fi
  line+=" $cell |"
}

columns=()
head='| |'
rule='| --- |'
for peer in "${peers[@]}"; do
  if [[ -n ${package[$peer]-} ]] && ! type -P "$peer" >/dev/null; then
    echo "no $peer here; it is in the Debian package ${package[$peer]}" >&2
  elif [[ $peer == script ]] && ! { type -P jq && type -P ps; } >/dev/null; then
    echo "no jq or no ps here; they are in the Debian packages jq and procps" >&2
  else
    columns+=("$peer")
    head+=" ${title[$peer]-$peer} |"
    rule+=' --- |'
  fi
done
printf '%s\n' "$head" "$rule"

export TMPDIR=$work DCELOCK
exit_status=0
for i in "${!labels[@]}"; do
  line="| ${labels[i]} |"
  read -ra experiment <<<"${experiments[i]}"
  if [[ ${experiment[0]} == alone_* ]]; then # one at a time
    for peer in "${columns[@]}"; do
      begin_cell "$peer" "${experiment[@]}"
      end_cell "$peer"
    done
  else
    for peer in "${columns[@]}"; do begin_cell "$peer" "${experiment[@]}"; done
    for peer in "${columns[@]}"; do end_cell "$peer"; done
  fi
  echo "$line"
done
exit "$exit_status"
