#!/usr/bin/env bash
# One archive root, one scrape: contention, release, override and reclaim, with
# bash and the real flock(1) as the other party.

# Scripts in single quotes are for another shell to expand.
# shellcheck disable=SC2016
set -u
# shellcheck source=tests/smoke-lib.sh
. "$(dirname "$0")/smoke-lib.sh"

mkfifo "$work/go"

# A holder that dcelock does not know.
bash -c 'exec 9>>"$0" && flock 9 && touch "$1/holds" && read -r _ <"$1/go"' "$lock" "$work" &
holder=$!
pids+=("$holder")
eventually test -e "$work/holds" || fail "the holder does not begin"
run touch "$work/ran"
status=$?
[[ $status -eq 1 ]] || fail "a run beside a flock(1) holder ended with $status"
says "Another scrape is already running (lock: $lock)"
[[ ! -e $work/ran ]] || fail "the command ran beside a flock(1) holder"
kill "$holder"
wait "$holder" 2>/dev/null
run true || fail "a run after the holder was killed is refused"
pass "a flock(1) holder excludes a run, and its death lets one in"

# A holder with a record: the hint names it.
"$DCELOCK" --config "$config" -- bash -c 'read -r _ <"$0"' "$work/go" &
holder=$!
pids+=("$holder")
eventually grep -qs "^pid=$holder$" "$lock.meta" || fail "no record of the run appears"
started=$(grep -E '^started=' "$lock.meta" | head -1 | cut -d= -f2-)
run touch "$work/ran"
status=$?
[[ $status -eq 1 ]] || fail "a second run ended with $status"
says "Another scrape is already running (lock: $lock)"
says "Holder pid $holder (running, started $started): bash -c"
[[ ! -e $work/ran ]] || fail "the command ran beside another"
lock_is_held || fail "flock(1) takes the lock of a running scrape"
pass "a second run is refused and told who the holder is"

# The holder is killed, and then its command ends: the record is reclaimed.
{ kill -KILL "$holder" && wait "$holder"; } 2>/dev/null
lock_is_held || fail "the lock went with the wrapper while its command runs"
echo >"$work/go"
eventually lock_is_free || fail "the lock stays held after the command's end"
run true || fail "the run after a killed holder is refused"
says "reclaiming scrape lock; previous holder pid $holder is not running"
[[ ! -e $lock.meta ]] || fail "a record is left"
pass "after a killed holder the next run reclaims its record"

# The override beats archive_root, and is another lock.
export DCE_SCRAPE_LOCK_FILE=$work/other/my.lock
run bash -c '! flock -n "$0" true && flock -n "$1" true' "$DCE_SCRAPE_LOCK_FILE" "$lock" || fail "the override does not decide which lock is taken"
unset DCE_SCRAPE_LOCK_FILE
pass "DCE_SCRAPE_LOCK_FILE wins over archive_root"

# The record of a script whose process is dead.
true &
dead=$!
wait "$dead"
printf 'pid=%s\nstarted=2026-06-04T06:39:46Z\ncmd=./run-discord-scrape-host.sh\n' "$dead" >"$lock.meta"
run true || fail "a run is refused because of a dead pid"
says "reclaiming scrape lock; previous holder pid $dead is not running"
pass "a dead pid in the record is reclaimed"
