#!/usr/bin/env bash
# The lock functions that scrape scripts carry, as one more peer for peers.sh:
#   script-lock.sh [--status] --config FILE [--] COMMAND [ARG...]
# They are as found in use, weaknesses included.
set -u
query=
if [[ $1 == --status ]]; then
  query=yes
  shift
fi
archive_root=$(jq -r '.archive_root // empty' "$2") || exit 1
shift 2
[[ ${1-} != -- ]] || shift
lock=${DCE_SCRAPE_LOCK_FILE:-$archive_root/.dce-scrape.lock}
meta=$lock.meta

meta_value() { grep -E "^$1=" "$meta" 2>/dev/null | head -1 | cut -d= -f2-; }

holder_is_running() {
  local pid
  pid=$(meta_value pid)
  [[ -n $pid ]] && { kill -0 "$pid" 2>/dev/null || ps -p "$pid" >/dev/null; }
}

print_holder() {
  local state='not running'
  ! holder_is_running || state=running
  [[ ! -e $meta ]] || echo "Holder pid $(meta_value pid) ($state, started $(meta_value started)): $(meta_value cmd)"
}

print_status() {
  if ! [[ -e $lock ]]; then
    echo 'state: free (no lock file)'
  elif flock -n "$lock" true; then
    echo 'state: free (lock file present but not held)'
  else
    echo 'state: held (active scrape)'
    print_holder
  fi
}

clean_up() { rm -f "$meta"; }

take_lock() {
  trap clean_up EXIT
  exec {fd}>>"$lock" || exit 1
  if ! flock -n "$fd"; then
    echo "Another scrape is already running (lock: $lock)" >&2
    print_holder >&2
    exit 9
  fi
  if [[ -e $meta ]] && ! holder_is_running; then
    echo "reclaiming scrape lock; previous holder pid $(meta_value pid) is not running" >&2
  fi
  printf 'pid=%s\nstarted=%s\ncmd=%s\n' $$ "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*" >"$meta"
}

if [[ -n $query ]]; then
  print_status
  exit
fi
take_lock "$@"
"$@"
