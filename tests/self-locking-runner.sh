#!/usr/bin/env bash
# A scrape runner that locks for itself, as runners did before dcelock: a party
# for the smokes.
#   self-locking-runner.sh [--config FILE] [--env-file FILE] [--reclaim-stale] [TARGET...]
# Without --config it goes by config/scrape-targets.json of the checkout it lies
# in, without --env-file by DCE_ENV_FILE, else by scrape.env of that checkout.
# What it scrapes is a line at its begin and one at its end in
# {archive_root}/scrapes. For those who watch: SCRAPE_EVENTS is told of the
# begin, and SCRAPE_HOLD (a FIFO) is read from before the end.
set -u
as_typed="$0 $*"

die() { echo "ERROR: $1" >&2; exit 1; }

# Neither grep, cut and jq nor more subshells than it takes: hundreds of these
# are run, and what they start would be most of the time.
checkout=$(cd "${0%/*}" && pwd -P) || exit 1
until [[ -e $checkout/.git ]]; do
  [[ -n $checkout ]] || die "$0 lies in no checkout"
  checkout=${checkout%/*}
done
config=$checkout/config/scrape-targets.json
env_file=${DCE_ENV_FILE:-$checkout/scrape.env}
reclaim=
while (($# > 0)); do
  case $1 in
    --config) config=${2?--config names no file}; shift ;;
    --config=*) config=${1#*=} ;;
    --env-file) env_file=${2?--env-file names no file}; shift ;;
    --env-file=*) env_file=${1#*=} ;;
    --reclaim-stale) reclaim=yes ;;
    -*) die "unknown option $1" ;;
  esac
  shift
done

# Before the lock is chosen, and over what the caller has set: so do real ones.
if [[ -e $env_file ]]; then
  set -a
  # shellcheck source=/dev/null
  . "$env_file"
  set +a
fi

# The configs of the smokes have no escapes in their paths.
[[ -r $config && $(<"$config") =~ \"archive_root\"[[:space:]]*:[[:space:]]*\"([^\"]+)\" ]] || die "$config names no archive_root"
archive_root=${BASH_REMATCH[1]}
lock=${DCE_SCRAPE_LOCK_FILE:-$archive_root/.dce-scrape.lock}
meta=$lock.meta

# read_record: makes pid, started, cmd and state those of the record.
read_record() {
  local key value
  pid='' started='' cmd='' state='not running'
  while IFS='=' read -r key value; do
    case $key in
      pid) pid=${pid:-$value} ;;
      started) started=${started:-$value} ;;
      cmd) cmd=${cmd:-$value} ;;
    esac
  done <"$meta"
  if [[ -n $pid ]] && kill -0 "$pid"; then
    state=running
  fi
} 2>/dev/null

if [[ -n $reclaim ]]; then
  read_record
  if [[ -n $pid && $state != running ]]; then
    echo "reclaiming scrape lock; previous holder pid $pid is not running" >&2
    rm -f "$meta"
  fi
  exit 0
fi

locked='' scraping=''
finish() {
  [[ -z $scraping ]] || echo "end $$" >>"$archive_root/scrapes"
  [[ -n $locked ]] || return
  # In this order, as real ones do: whoever waits may have the lock, and a
  # record of its own in place, before this record is removed.
  flock -u "$fd"
  rm -f "$meta"
}
trap finish EXIT

if [[ ${DCE_SKIP_SCRAPE_LOCK-} != 1 ]]; then
  exec {fd}>>"$lock" || exit 1
  if ! flock -n "$fd"; then
    echo "ERROR: Another scrape is already running (lock: $lock)." >&2
    read_record
    [[ -z $pid ]] || echo "Holder pid $pid ($state, started $started): $cmd" >&2
    exit 1
  fi
  locked=yes
  TZ=UTC0 printf -v now '%(%Y-%m-%dT%H:%M:%SZ)T'
  printf 'pid=%s\nstarted=%s\ncmd=%s\n' "$$" "$now" "$as_typed" >"$meta"
fi

echo "begin $$" >>"$archive_root/scrapes"
scraping=yes
[[ -z ${SCRAPE_EVENTS-} ]] || echo "begin ${SCRAPE_NAME-$$}" >>"$SCRAPE_EVENTS"
[[ -z ${SCRAPE_HOLD-} ]] || read -r _ <"$SCRAPE_HOLD"
