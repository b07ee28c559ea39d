# Shared by the smokes: source it. It makes a throw-away archive root, finds
# the binary, and ends what a smoke started, by its pid.
# shellcheck shell=bash
# Scripts in single quotes are for another shell to expand.
# shellcheck disable=SC2016

for tool in bash flock grep; do
  command -v "$tool" >/dev/null || { echo "this smoke needs $tool; get it with: apt-get install util-linux grep bash" >&2; exit 1; }
done

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
DCELOCK=${DCELOCK:-$repository/dcelock}
[[ -x $DCELOCK ]] || { echo "no binary at $DCELOCK; build it with: make -C $repository" >&2; exit 1; }
unset DCE_CONFIG_FILE DCE_REPO_ROOT DCE_SCRAPE_LOCK_FILE DCE_SCRAPE_LOCK_HELD DCE_SCRAPE_LOCK_WAIT DCE_SKIP_SCRAPE_LOCK

work=$(mktemp -d)
pids=()
clean_up() {
  local pid
  for pid in "${pids[@]}"; do
    kill "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
  done
  rm -rf "$work"
}
trap clean_up EXIT

archive_root=$work/archive
lock=$archive_root/.dce-scrape.lock
config=$work/scrape-targets.json
mkdir "$archive_root"
printf '{"archive_root": "%s", "targets": []}\n' "$archive_root" >"$config"

pass() { echo "ok: $1"; }
fail() {
  echo "FAILED: $1" >&2
  [[ ! -e $work/err ]] || sed 's/^/  | /' "$work/err" >&2
  exit 1
}

# eventually COMMAND...: waits until the command succeeds, ten seconds at most.
eventually() {
  local deadline=$((SECONDS + 10))
  until "$@"; do
    ((SECONDS < deadline)) || return 1
  done
}

# says TEXT: the last run printed it on standard error.
says() { grep -qF -- "$1" "$work/err" || fail "the messages lack: $1"; }

lock_is_free() { flock -n "$lock" true; }
lock_is_held() { ! lock_is_free; }

# run COMMAND...: runs it under dcelock, messages to $work/err.
run() { "$DCELOCK" --config "$config" -- "$@" 2>"$work/err"; }
