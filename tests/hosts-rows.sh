# The experiments of hosts.sh, which sources it. Each runs in a process and an
# archive root of its own, and prints its cell; it fails when it came to no
# outcome. It may leave processes behind on the hosts.
# shellcheck shell=bash
# shellcheck disable=SC2016,SC2034,SC2154

fail() { echo "$*" >&2; exit 1; }
yes_if() { if "$@"; then echo yes; else echo no; fi; }

# hold HOST [TOOL...]: it holds the lock there, by a run named first.
hold() { on "$1" begin first "${@:2}" || fail "no first run on $1"; }
holding() { if (($# > 1)); then hold "$@"; else hold "$1" dcelock -n; fi; }
# try HOST TOOL...: a second run; true if its command ran. Sets status, messages.
try() {
  local ran=0
  status=$(on "$1" try "${@:2}" 2>"$work/err") || ran=$?
  cat "$work/err" >&2
  [[ -n $status ]] || fail "no outcome on $1"
  return "$ran"
}
# kept_out HOST TOOL...: the cell of a run that should not start.
kept_out() {
  if try "$@"; then
    echo no
  elif ((status == 1)); then
    echo yes
  else
    echo "with status $status"
  fi
}
says() { grep -qE -- "$1" "$work/err"; }
server() { [[ $hosts == kernels ]] || { echo 'no such side'; exit 0; }; }
# unseen CELL: the cell of an experiment with the server's own programs. Under
# smbd's defaults a client keeps its locks to itself until another one asks.
unseen() {
  if [[ $engine == cifs && ($1 == no || $1 == 'does not wait') ]]; then
    echo "limit: $1, without \"kernel oplocks\""
  else
    echo "$1"
  fi
}

row 'one host holds, the other is kept out' yes holds_asks a b
row '... and the other way round' yes holds_asks b a
row 'a client holds, the server is kept out of the folder it exports' 'yes|limit.*|no such side' server_asks a s
row 'the server holds, a client is kept out' 'yes|limit.*|no such side' server_asks s a
holds_asks() { holding "$1"; kept_out "$2" dcelock -n; }
server_asks() {
  local cell
  server
  cell=$(holds_asks "$@")
  unseen "$cell"
}
row 'the refusal names pid, host and command of the holder' yes names
names() {
  local pid
  holding a
  pid=$(on a cat "$own/first.pid")
  try b dcelock -n && fail 'two runs at once'
  yes_if eval 'says "pid $pid" && says "[ (]a[ ,)]|host a" && says "first"'
}
row 'another host has just looked, and seen no lock file: it is kept out' yes looked
looked() {
  on b bash -c 'ls "$0"; ! test -e "$1"' "$root" "$lock" || fail 'there is a lock file'
  holding a
  kept_out b dcelock -n
}

row 'a plain flock(1) on the other host keeps it out' yes flock_holds a b
row '... on the server, a client' 'limit.*|no such side' server_flock s a flock
row '... on a client, the server' 'yes|limit.*|no such side' server_flock a s flock
flock_holds() { hold "$1" flock -n; kept_out "$2" dcelock -n; }
server_flock() {
  local cell
  server
  cell=$(flock_holds "$1" "$2")
  if [[ $cell == no && $1 == s ]]; then echo "limit: a server's own flock(2) is its own"; else unseen "$cell"; fi
}
row 'it keeps a plain flock(1) on the other host out' 'yes|yes, as an error.*' flock_asks a b
flock_asks() {
  local cell
  holding "$1"
  cell=$(kept_out "$2" flock -n)
  # Its way to say that open(2) or flock(2) failed: on CIFS with EACCES.
  [[ $kind != cifs || $cell != 'with status 65' ]] || cell='yes, as an error (65)'
  echo "$cell"
}

row 'from release on one host to the start of a --wait on the other, ms' '[0-9]{1,4}' hand_over a b
row '... from the server to a client' '[0-9]{1,4}|limit.*|no such side' server_hand_over s a
row '... from a client to the server' '[0-9]{1,4}|limit.*|no such side' server_hand_over a s
hand_over() {
  local round released worst=0 late
  for round in 1 2 3; do
    holding "$1"
    on "$2" queue second dcelock --wait 60 || { echo 'does not wait'; return; }
    released=${EPOCHREALTIME/./}
    on "$1" finish first || fail 'the holder failed'
    on "$2" began second || fail "no run in round $round"
    late=$(((${EPOCHREALTIME/./} - released) / 1000))
    ((late < worst)) || worst=$late
    on "$2" finish second || fail 'the run that waited failed'
  done
  echo "$worst"
}
server_hand_over() {
  local cell
  server
  cell=$(hand_over "$@")
  unseen "$cell"
}
row '--wait 6, and the lock is free after three seconds: it starts' yes in_time
in_time() {
  local waiting
  holding a
  try b dcelock --wait 6 &
  waiting=$!
  pause 3
  on a finish first || fail 'the holder failed'
  yes_if wait "$waiting"
}
row '--wait 3 gives up after three seconds' yes gives_up
gives_up() {
  local begun took
  holding a
  begun=${EPOCHREALTIME/./}
  [[ $(kept_out b dcelock --wait 3) == yes ]] || fail "status $status"
  took=$(((${EPOCHREALTIME/./} - begun) / 1000))
  if ((took >= 3000 && took < 6000)); then echo yes; else echo "after $took ms"; fi
}

row 'wrapper killed, its command lives: the other host is kept out' yes wrapper_killed
wrapper_killed() {
  holding a
  on a slay first pid KILL
  kept_out b dcelock -n
}
row 'command killed: the other host starts at once' yes command_killed up
row 'wrapper and command killed: the other host starts at once' yes command_killed both
command_killed() {
  holding a
  [[ $1 == up ]] || on a slay first pid KILL
  on a slay first up KILL
  yes_if try b dcelock --wait 2
}

row 'a run that is refused on the holder'\''s host: the other host is still kept out' yes refused dcelock
row '... a status there' yes refused status
row '... a plain flock(1), of a plain flock(1)' 'yes|limit.*' refused flock
row '... a run, where both lock a file alone (DCE_SCRAPE_LOCK_FILE)' 'yes|limit.*' refused file
refused() {
  local cell holder=(dcelock -n)
  case $1 in
    flock) holder=(flock -n) ;;
    file)
      lock=$root/alone
      holder=(env "DCE_SCRAPE_LOCK_FILE=$lock" "$share/dcelock" -n)
      ;;
  esac
  on a touch "$lock"
  hold a "${holder[@]}"
  if [[ $1 == status ]]; then
    status_on a
  else
    try a "${holder[@]}" && fail 'two runs at once'
  fi
  [[ $1 == file ]] || holder=(dcelock -n)
  cell=$(kept_out b "${holder[@]}")
  if [[ $cell == no && $kind == cifs && ($1 == flock || $1 == file) ]]; then
    # Both have one handle, and whoever closes it unlocks it.
    echo 'limit: starts, as the kernel has let go of the lock'
  else
    echo "$cell"
  fi
}

row 'nested in itself it runs' yes nested dcelock
row '... in a plain flock(1)' yes nested flock
nested() {
  local outer=("$share/dcelock" --config "$config" -n)
  [[ $1 == dcelock ]] || outer=(env flock -n "$lock")
  if patience=20 try a "${outer[@]}" "$share/dcelock" --config "$config" --wait 5 --; then echo yes; else echo "with status $status"; fi
}
row '--close: what the command leaves behind does not keep the other host out' yes closes
closes() {
  run='echo $$ >"$0.up"; setsid bash -c "exec sleep 60" </dev/null >/dev/null 2>&1 & echo $! >"$0.up"; echo up >"$0.news"' \
    hold a dcelock -n --close
  on a ended first || fail 'it failed'
  yes_if try b dcelock -n
}
row '40 short runs from two hosts at once: none overlaps' yes counted a b
row '... and the server' 'yes|limit.*|no such side' counted_server
counted() {
  local host counts=() each=$((40 / $#))
  on a bash -c 'echo 0 >"$0"' "$root/number"
  for host in "$@"; do
    patience=120 on "$host" count "$each" &
    counts+=($!)
  done
  for host in "${counts[@]}"; do wait "$host" || fail 'a run failed'; done
  yes_if test "$(on a cat "$root/number")" -eq $((each * $#))
}
counted_server() {
  local cell
  server
  cell=$(counted a b s)
  unseen "$cell"
}

row 'status says held, on both hosts' yes status_of dcelock
row '... of a plain flock(1), which leaves no record' yes status_of flock
row '... on the server, of a run on a client' 'yes|limit.*|no such side' status_server a s
row '... on a client, of a run on the server' 'yes|limit.*|no such side' status_server s a
row 'status says free, on both hosts, after the run' yes status_free
status_on() {
  status=0
  on "$1" "$share/dcelock" --config "$config" --status >"$work/out" || status=$?
  cat "$work/out" >&2
}
status_of() {
  local host wrong=
  if [[ $1 == flock ]]; then hold a flock -n; else holding a; fi
  for host in a b; do
    status_on "$host"
    { ((status == 1)) && grep -q '^state: held' "$work/out"; } || wrong+=" $(sed -n 's/^state: //p' "$work/out") on $host"
  done
  if [[ -z $wrong ]]; then echo yes; else echo "no:$wrong"; fi
}
status_server() {
  server
  holding "$1"
  status_on "$2"
  unseen "$(yes_if grep -q '^state: held' "$work/out")"
}
status_free() {
  holding a
  on a finish first
  status_on a
  ((status == 0)) || { echo 'not on its own host'; return; }
  status_on b
  yes_if test "$status" -eq 0
}

row 'lock file removed on the holder'\''s host: a run there is kept out' 'yes|limit: an error.*' removed a a
row '... a run on the other host' 'yes|limit.*' removed a b
row '... removed there: a run there' 'yes|limit.*' removed b b
row '... removed there: a run on the holder'\''s host' 'yes|limit: an error.*' removed b a
row 'lock file and record removed on the holder'\''s host: a run there is kept out' 'yes|limit: an error.*' removed a a .meta
row '... a run on the other host' 'yes|limit.*' removed a b .meta
row '... removed there: a run there' 'yes|limit.*' removed b b .meta
row '... removed there: a run on the holder'\''s host' 'yes|limit: an error.*' removed b a .meta
removed() {
  local cell
  holding a
  on "$1" rm -f "$lock" "$lock${3-}"
  cell=$(kept_out "$2" dcelock -n)
  if [[ $cell == no && $2 == b ]]; then
    # The folder's lock is the host's own.
    echo 'limit: starts'
  elif [[ $kind == cifs && $cell == 'with status 73' ]]; then
    # The name stays, for nobody to open or make, until the run ends.
    echo 'limit: an error (73)'
  else
    echo "$cell"
  fi
}
row 'lock file replaced over and over by the other host: every run starts or is refused' 'yes|limit: an error.*' replaced
replaced() {
  local replacing wrong=0
  on a touch "$lock"
  on b bash -c 'for ((i = 0; i < 60; i++)); do touch "$0.new"; mv "$0.new" "$0"; done' "$lock" &
  replacing=$!
  while kill -0 "$replacing" 2>/dev/null; do
    try a dcelock -n || ((status == 1)) || { wrong=$status; break; }
  done
  wait "$replacing"
  if ((wrong == 73)) && [[ $kind == cifs ]]; then
    echo 'limit: an error (73) now and then'
  elif ((wrong)); then
    echo "status $wrong"
  else
    echo yes
  fi
}

row 'another user, who may only read the lock file' 'yes|limit.*' reader
reader() {
  on a bash -c 'chmod 777 "$0"; touch "$1"; chmod 644 "$1"' "$root" "$lock"
  if try b setpriv --reuid 65534 --regid 65534 --clear-groups "$share/dcelock" --config "$config" -n --; then
    holding a
    [[ $(kept_out b setpriv --reuid 65534 --regid 65534 --clear-groups "$share/dcelock" --config "$config" -n --) == yes ]] || { echo no; return; }
    echo yes
  elif says 'right to write|may only be read|for writing|only read|write permission'; then
    echo "limit: needs the right to write, and says so (status $status)"
  else
    echo "no, status $status"
  fi
}
row 'mounted with local_lock=flock: the other host is kept out' 'yes|limit: warns.*|no such option' mounted local_lock=flock
row '... with local_lock=all' 'yes|limit: warns.*|no such option' mounted local_lock=all
row '... with nolock' 'yes|limit: warns.*|no such option' mounted nolock
row '... with nobrl' 'limit: warns.*|no such option' mounted nobrl
mounted() {
  local cell host options
  case $kind/$1 in
    nfs/*lock*) options=nosharecache,$1 ;;
    cifs/nobrl) options=$1 ;;
    *) echo 'no such option'; return ;;
  esac
  root=/mnt/other/${root##*/}
  lock=$root/.dce-scrape.lock
  printf '{"archive_root": "%s"}' "$root" >"$work/share/$1.json"
  config=$share/$1.json
  for host in a b; do
    on "$host" mkdir -p /mnt/other
    mount_on "$host" "$options" /mnt/other || { echo 'no such option'; return; }
  done
  holding a
  cell=$(kept_out b dcelock -n)
  if [[ $cell == no ]]; then
    if says 'warning: .*(local|other hosts|this host)'; then
      cell="limit: warns that locks are each host's own"
    else
      cell='no, and says nothing'
    fi
  fi
  tidy
  for host in a b; do on "$host" umount /mnt/other; done
  echo "$cell"
}

row 'TERM ends it when the server does not answer' 'yes|limit.*' dead_server
dead_server() {
  local cell
  holding b
  freeze s
  on a launch second dcelock --wait 30
  pause 1
  on a slay second pid TERM
  if ends_by 143; then
    cell=yes
  else
    on a slay second pid KILL
    # FUSE waits for what its daemon has begun with, whatever the signal.
    if ends_by 137; then cell=no; else cell='limit: nor does KILL'; fi
  fi
  thaw s
  echo "$cell"
}
ends_by() {
  local status=0
  patience=5 on a ended second >&2 || status=$?
  ((status == $1))
}

row 'holder'\''s host dies: the other host starts after, s' '[0-9]+( \(lease 10\))?|limit.*' dies
dies() {
  local begun
  holding a
  begun=$SECONDS
  crash a
  if patience=60 try b dcelock --wait 40; then
    echo "$((SECONDS - begun))$(of_lease)"
  else
    boot a
    if try b dcelock --wait 20; then echo 'limit: once it is up again'; else echo 'no, not even once it is up again'; fi
  fi
  [[ -e $work/a.kernel || $hosts != kernels ]] || boot a
  mount_on a
}
of_lease() { [[ $kind != nfs ]] || echo " (lease $lease)"; }
row '... and until then the refusal says whose it was' 'yes|limit.*|free at once' dies_says
dies_says() {
  local pid begun=$SECONDS
  holding a
  pid=$(on a cat "$own/first.pid")
  crash a
  if try b dcelock -n; then
    if ((SECONDS - begun < 4)); then
      echo 'free at once'
    else
      # The server first calls back what it had granted to the dead host.
      echo "limit: open(2) itself takes $((SECONDS - begun)) s"
    fi
  else
    yes_if eval 'says "pid $pid" && says "cannot tell"'
  fi
  boot a
  mount_on a
}
row 'holder'\''s host is cut off, and its command goes on: the other host starts after, s' 'limit.*|never|not tried.*' cut_off
cut_off() {
  local begun cell
  [[ $hosts == kernels ]] || { echo 'not tried: one kernel'; return; }
  holding a
  unplug a
  begun=$SECONDS
  if patience=60 try b dcelock --wait 40; then
    cell="limit: $((SECONDS - begun))$(of_lease), and both run"
  else
    cell='never'
  fi
  plug a
  echo "$cell"
}
row 'the server starts anew under a run: another host is kept out' 'yes|limit.*|not tried.*' server_anew
server_anew() {
  local cell
  [[ $hosts == kernels ]] || { echo 'not tried: one server'; return; }
  holding a
  on s sync # smbd leaves that to its kernel
  crash s
  boot s
  cell=$(patience=80 kept_out b dcelock --wait $((grace_again + 15)))
  # smbd keeps no locks over its end, nor does it wait for those who had them.
  if [[ $cell == no && $kind == cifs ]]; then echo 'limit: starts, before the holder'\''s host has come back'; else echo "$cell"; fi
}
