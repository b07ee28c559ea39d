# The experiments of peers.sh, which sources it. Each runs in a process and a
# folder of its own, with the tool $peer, and prints its cell; it fails when it
# came to no outcome. It may leave processes behind.
# shellcheck shell=bash
# Scripts in single quotes are for another shell to expand, and some variables
# are for another file.
# shellcheck disable=SC2016,SC2154

yes_if() { if "$@"; then echo yes; else echo no; fi; }
no_if() { if "$@"; then echo no; else echo yes; fi; }
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
lives() { kill -0 "$1" 2>/dev/null; }
# not_yet: false, after a moment in which others can go on.
not_yet() { read -r -t 0.005 _ <>"$work/never"; }

# begin NAME WORDS...: runs, under these words, a command that stays until it is
# told to end; NAME.up has its pid. False if it does not run.
stay='echo $$ >"$0.up"; read -r _ <"$0.go"'
begin() {
  local at=$work/$1
  shift
  rm -f "$at.up" "$at.go"
  mkfifo "$at.go"
  "$@" bash -c "${run:-$stay}" "$at" --target KotOR --token hunter2 2>"$at.err" &
  holder=$!
  eventually begun_or_ended "$at" || fail "neither begins nor ends: $*"
  [[ -s $at.up ]]
}
begun_or_ended() { [[ -s $1.up ]] || ! lives "$holder" || not_yet; }
# hold [FORM]: the tool holds the lock, as process $holder.
hold() {
  words "${1:-now}" "$lock"
  begin first "${w[@]}" || fail "no first run"
}
# end NAME PID: tells the command to end, and waits for PID to do so.
end() {
  echo >"$work/$1.go"
  wait "$2" || fail "the run ended with $?"
}

# try FORM: a second run; true if its command ran. Sets status and $work/err.
try() {
  words "$1" "$lock"
  second "${w[@]}"
}
second() {
  rm -f "$work/ran"
  status=0
  "$@" touch "$work/ran" >"$work/out" 2>"$work/err" || status=$?
  [[ -e $work/ran ]]
}
refused() { ! try "${1:-now}" || fail "two runs at once"; }
names_holder() { grep -qwE "$holder|$(<"$work/first.up")" "$1"; }

# queue: a second run that waits, as process $waiter; false if it does not.
queue() {
  words wait "$lock"
  "${w[@]}" bash -c 'echo "${EPOCHREALTIME/./}" >"$0"' "$work/started" 2>"$work/err" &
  waiter=$!
  still_waits
}
# What does not stand in the kernel's queue is given some seconds to end.
still_waits() {
  local deadline=$((SECONDS + 3))
  until grep -q -- "-> .* $waiter " /proc/locks; do
    if ! lives "$waiter" || [[ -s $work/started ]]; then return 1; fi
    if ((SECONDS >= deadline)); then
      polls=', polls'
      return 0
    fi
    not_yet || true
  done
}

row 'refused, it names the pid of the holder' yes refused_names
row '... and when refused once more' yes refused_names more
refused_names() {
  hold
  refused
  [[ -z ${1-} ]] || refused
  yes_if names_holder "$work/err"
}
row '... and the command of the holder' yes refused_says KotOR
row '... and since when' yes refused_says '20[0-9][0-9]-[01][0-9]-[0-3][0-9]'
refused_says() { hold; refused; yes_if grep -qE "$1" "$work/err"; }

row 'fails at once on request' yes at_once
at_once() {
  hold
  local begun=$SECONDS
  refused
  ((status != 0)) || fail "a refusal with status 0"
  yes_if test $((SECONDS - begun)) -lt 5
}
row 'waits on request' yes waits
waits() {
  hold
  queue || { echo no; return; }
  end first "$holder"
  wait "$waiter" || fail "the run that waited ended with $?"
  yes_if test -s "$work/started"
}
row 'waits with a time limit' yes limit
limit() {
  hold
  local begun=${EPOCHREALTIME/./}
  refused limit
  yes_if test $((${EPOCHREALTIME/./} - begun)) -gt 950000
}
row 'from release to the start of the waiting command, ms' '[0-4]?[0-9]{1,2}' alone_hand_over
alone_hand_over() {
  local round released
  for round in {1..5}; do
    hold
    rm -f "$work/started"
    queue || { echo 'does not wait'; return; }
    released=${EPOCHREALTIME/./}
    end first "$holder"
    wait "$waiter" || fail "the run that waited ended with $? in round $round"
    echo "$((($(<"$work/started") - released) / 1000))" >>"$work/times"
  done
  echo "$(median <"$work/times")${polls-}"
}

row 'SIGKILL to it while what it ran lives on: a second run is kept out' yes killed
killed() {
  run="bash -c '$stay' \"\$0\" & wait" hold
  kill -KILL "$holder"
  wait "$holder" || true
  lives "$(<"$work/first.up")" || fail "nothing lives on"
  no_if try now
}
row 'SIGKILL to all of it: the next run starts' yes killed_all
killed_all() {
  hold
  kill -KILL "$holder" || fail "it does not run"
  kill -KILL "$(<"$work/first.up")" 2>/dev/null || true
  wait "$holder" || true
  yes_if eventually try now
}
row 'lock file removed under a live run: a second run is kept out' yes removed
row '... lock file and record removed' yes removed .meta
removed() { hold; rm -f "$lock" "$lock${1-}"; no_if try now; }
row 'lock file replaced: a run that waited for it notices' yes replaced
replaced() {
  local first
  hold
  queue || { echo 'does not wait'; return; }
  first=$holder
  rm "$lock"
  [[ $peer != dcelock ]] || local peer=flock # dcelock would not start
  words now "$lock"
  begin other "${w[@]}" || fail "no run with the new file"
  end first "$first"
  yes_if still_waits
}
row 'kept out by a plain flock(1)' yes beside_flock
beside_flock() { begin first flock "$lock" || fail "no flock"; no_if try now; }
row 'kept out by an fcntl(2) lock' 'yes|not tried' beside_fcntl
beside_fcntl() {
  local other form=fcntl
  other=$(type -P with-lock-ex || type -P lckdo) || { echo 'not tried'; return; }
  try fcntl || form=now # no such flag
  begin first "$other" "$lock" || fail "no ${other##*/}"
  no_if try "$form"
}

row 'inside itself, with the same lock, it runs' yes nests
nests() {
  words now "$lock"
  if second "${w[@]}" bash -c '"$@"; exit' bash "${w[@]}"; then
    echo yes
  elif second "${w[@]}" "${w[@]}"; then
    echo 'if nothing is between'
  else
    echo no
  fi
}
row 'two locks, one inside the other' yes two_locks
two_locks() {
  local other=$work/other/.dce-scrape.lock outer
  mkdir "$work/other"
  printf '{"archive_root": "%s"}' "$work/other" >"$work/other.json"
  words now "$lock"
  outer=("${w[@]}")
  words now "$other"
  begin first "${outer[@]}" "${w[@]}" || fail "no run with two locks"
  refused
  lock=$other
  no_if try now
}

row 'passes on the exit status (36 of 0 to 255)' yes statuses
statuses() {
  local expected wrong=
  words now "$lock"
  for expected in {0..3} 9 {64..78} {99..101} 111 {125..130} 137 143 {252..255}; do
    status=0
    "${w[@]}" sh -c "exit $expected" || status=$?
    ((status == expected)) || wrong=yes
  done
  no_if test "$wrong"
}
row 'exit status: refused, no such command, no lock file to be had' '1, 127, 73' failures
failures() {
  local each
  hold
  refused
  each=$status
  end first "$holder"
  status=0
  "${w[@]}" "$work/none" || status=$?
  each+=", $status"
  words now "$config/lock"
  ! second "${w[@]}" || fail "it ran without a lock file"
  echo "$each, $status"
}
row 'exit status of a refusal can be chosen' yes chosen
chosen() { hold; refused chosen; yes_if test "$status" -eq 77; }
row '... and can be success' 'yes' success
success() {
  hold
  refused success
  if ((status == 0)) && [[ ! -s $work/err ]]; then echo 'yes, silently'; else yes_if test "$status" -eq 0; fi
}
row 'dies of the signal that killed the command' yes same_death
same_death() {
  words now "$lock"
  bash -c '"$@"; exit 0' bash "${w[@]}" sh -c 'kill -USR1 $$' 2>"$work/err"
  yes_if grep -qE '^bash: .*[0-9]+ User defined signal 1' "$work/err"
}
row 'TERM sent to it reaches the command' yes terminated
terminated() {
  run='trap "echo >$0.got; exit 0" TERM; sleep 5 & echo $$ >"$0.up"; wait' hold
  kill -TERM "$holder"
  wait "$holder" || true
  yes_if test -e "$work/first.got"
}

row 'what the command leaves in the background keeps the lock' 'yes, and it says so' left_behind now
row '... but need not' yes left_behind close
left_behind() {
  words "$1" "$lock"
  mkfifo "$work/first.go"
  "${w[@]}" bash -c 'bash -c "$1" "$0" <&- >&- 2>&- & until [[ -s $0.up ]]; do :; done' "$work/first" "$stay" 2>"$work/first.err"
  holder=none
  if [[ $1 == close ]]; then
    yes_if try now
  elif try now; then
    echo no
  elif names_holder "$work/first.err"; then
    echo 'yes, and it says so'
  else
    echo 'yes, silently'
  fi
}
row 'no process of its own needs to stay beside the command' no in_place
in_place() { hold exec; yes_if test "$(<"$work/first.up")" -eq "$holder"; }
row 'runs a script without #!, as execvp(3) does' yes no_interpreter
no_interpreter() {
  echo 'touch "$0.ran"' >"$work/plain"
  chmod +x "$work/plain"
  words now "$lock"
  "${w[@]}" "$work/plain" || true
  yes_if test -e "$work/plain.ran"
}
row 'gives a string to the shell (-c)' yes string
string() { words now "$lock"; [[ ${w[-1]} == -- ]] && unset 'w[-1]'; "${w[@]}" -c "touch $work/ran" || true; yes_if test -e "$work/ran"; }
row 'the command has descriptors 3 to 9 as the caller has them' yes descriptors
descriptors() {
  words now "$lock"
  local list='for fd in 3 4 5 6 7 8 9; do readlink /proc/$$/fd/$fd || echo none; done'
  exec 3</dev/null 4>"$work/four" 5<"$config" 6>&4 7<&5 8<"$work" 9<>"$work/nine"
  bash -c "$list" >"$work/bare"
  "${w[@]}" bash -c "$list" >"$work/under"
  exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-
  bash -c "$list" >>"$work/bare"
  "${w[@]}" bash -c "$list" >>"$work/under"
  yes_if cmp -s "$work/bare" "$work/under"
}
row 'the number of the lock'\''s own descriptor can be chosen' no number
number() { words number "$lock"; yes_if "${w[@]}" bash -c 'test "/proc/$$/fd/7" -ef "$0"' "$lock"; }
row 'leaves a token of the command line off the disk' yes no_secrets
no_secrets() { hold; no_if grep -rq hunter2 "$archive_root"; }

row 'a query that does not take the lock' 'yes, with the pid' query
query() {
  local held=0 free=0 probes taker=$peer
  hold
  words status "$lock"
  "${w[@]}" >"$work/held" 2>&1 || held=$?
  end first "$holder"
  "${w[@]}" >"$work/free" 2>&1 || free=$?
  if ((held == free)) && cmp -s "$work/held" "$work/free"; then echo no; return; fi
  [[ $peer != dcelock && $peer != script ]] || taker=flock
  for _ in {1..100}; do "${w[@]}" >"$work/free" 2>&1 || true; done &
  probes=$!
  while lives "$probes"; do
    peer=$taker try now || { echo 'takes it'; return; }
  done
  if names_holder "$work/held"; then echo 'yes, with the pid'; else echo yes; fi
}
row 'shared (read) locks' no shared
shared() { hold shared; refused; yes_if try shared; }
row 'locks a descriptor of the shell that calls it' no by_number
by_number() {
  cd "$work" || fail "no $work"
  exec 9>>"$lock"
  words now 9
  "${w[@]}" || true
  yes_if lock_is_held
}
row 'locks a directory, a device' no alone_kinds
alone_kinds() {
  local kinds=
  for lock in "$work/archive" /dev/zero; do
    words now "$lock"
    begin first "${w[@]}" || continue
    refused
    end first "$holder"
    if [[ -d $lock ]]; then kinds+=', directory'; else kinds+=', device'; fi
  done
  kinds=${kinds#, }
  echo "${kinds:-no}"
}
row 'locks a file that it may only read' yes read_only
read_only() {
  local as=()
  touch "$lock"
  chmod 444 "$lock"
  chmod 755 "$work/.." "$work"
  cp "$DCELOCK" "$folder/script-lock.sh" "$work"
  ((EUID != 0)) || as=(setpriv --reuid 65534 --regid 65534 --clear-groups)
  "${as[@]}" cat "$lock" || fail "the file cannot be read"
  DCELOCK=$work/dcelock folder=$work words now "$lock"
  yes_if "${as[@]}" "${w[@]}" true
}
row 'can insist that the lock file is there' no existing
existing() { no_if try existing; }
row 'mode of a new lock file, umask 022' 644 mode
mode() { umask 022; try now || fail "it does not run"; stat -c %a "$lock"; }

row 'size, KiB' '[0-9]+, static' size
size() {
  local file kind=
  case $peer in
    dcelock) file=$DCELOCK ;;
    script) file=$folder/script-lock.sh kind=', script' ;;
    *) file=$(type -P "$peer") ;;
  esac
  [[ -n $kind ]] || ldd "$file" >/dev/null 2>&1 || kind=', static'
  echo "$((($(stat -Lc %s "$file") + 1023) / 1024))$kind"
}
row 'memory beside the command, KiB' '[0-9]{4,5}' memory
memory() {
  hold
  if (($(<"$work/first.up") == holder)); then
    echo 0
  else
    awk '/^VmRSS/ { print $2 }' "/proc/$holder/status"
  fi
}
row 'time it adds to a run, ms' '[0-9]+[.][0-9]' alone_cost
alone_cost() {
  local program began between
  program=$(type -P true)
  words now "$lock"
  for _ in {1..41}; do
    began=${EPOCHREALTIME/./}
    "$program"
    between=${EPOCHREALTIME/./}
    "${w[@]}" "$program"
    echo "$((${EPOCHREALTIME/./} - between - (between - began)))"
  done | median | awk '{ printf "%.1f\n", $1 / 1000 }'
}
