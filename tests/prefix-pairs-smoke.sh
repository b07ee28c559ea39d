#!/usr/bin/env bash
# The prefix takes nothing away: what two self-locking runners do without it is
# compared with what they do when one or both are run by dcelock, over the ways
# in which a runner finds its config and its lock. Runs that exclude each other
# without the prefix must do so with it, and a run that begins without it must
# begin with it.

# All functions are called by aside.
# shellcheck disable=SC2317
set -u
# shellcheck source=tests/smoke-lib.sh
. "$(dirname "$0")/smoke-lib.sh"
unset DCE_ENV_FILE
DCELOCK=$(realpath "$DCELOCK")

deadline=10 # seconds until what must happen counts as never happening
lanes=5     # pairs at once; most of their time is a refusal's short wait

# How the config is chosen: what the first runner's words say, what the second's
# say, what dcelock is told, and the archive roots that these lead to. FOLDER
# stands for the lane's own.
kinds=(own words equals renamed one-of-two told told-and-words told-the-same variable variable-and-words)
declare -A means=(
  [own]='the configs of the checkouts'
  [words]='--config X in the words of both'
  [equals]='--config=X, relative, in the words of both'
  [renamed]='one archive root by a link to a config and by a copy of it'
  [one-of-two]='--config X in the words of the first, another archive than the second'
  [told]='dcelock --config another'
  [told-and-words]='dcelock --config another, --config X in the words of both'
  [told-the-same]="dcelock --config the checkout's"
  [variable]='DCE_CONFIG_FILE another'
  [variable-and-words]='DCE_CONFIG_FILE another, --config X in the words of both'
)
declare -A words_of=(
  [words first]='--config FOLDER/two.json' [words second]='--config FOLDER/two.json'
  [equals first]='--config=../two.json' [equals second]='--config=../two.json'
  [renamed first]='--config FOLDER/link.json' [renamed second]='--config FOLDER/copy.json'
  [one-of-two first]='--config FOLDER/two.json'
  [told-and-words first]='--config FOLDER/two.json' [told-and-words second]='--config=FOLDER/two.json'
  [variable-and-words first]='--config FOLDER/two.json' [variable-and-words second]='--config FOLDER/two.json'
)
declare -A told=([told]=three [told-and-words]=three [told-the-same]=A/config/scrape-targets)
declare -A variable=([variable]=three [variable-and-words]=three)

# What the env file says, and how the runner comes by it. "the-same" is the very
# lock that dcelock takes for the first runner.
env_files=(none named the-same skip-1 skip-0 named-by-words named-by-variable skip-1-by-words skip-0-by-variable)
declare -A says_env=(
  [none]='no env file'
  [named]='scrape.env names a lock'
  [the-same]="scrape.env names the lock that dcelock takes"
  [skip-1]='scrape.env says DCE_SKIP_SCRAPE_LOCK=1'
  [skip-0]='scrape.env says DCE_SKIP_SCRAPE_LOCK=0'
  [named-by-words]='--env-file X names a lock'
  [named-by-variable]='DCE_ENV_FILE names a lock'
  [skip-1-by-words]='--env-file=X says DCE_SKIP_SCRAPE_LOCK=1'
  [skip-0-by-variable]='DCE_ENV_FILE says DCE_SKIP_SCRAPE_LOCK=0'
)

# Where they lie: in one checkout, in two, or in two and called from a third,
# whose own config names an archive root that neither scrapes.
declare -A says_place=([same]='one checkout' [other]='two checkouts' [afar]='two checkouts, called from a third')

# make_folder NAME: makes what a lane needs and opens its FIFOs, for reading and
# writing, so that no end waits for the other.
make_folder() {
  local at name
  folder=$work/$1
  mkdir -p "$folder"/{one,two,three,four} "$folder"/{A,B,C}/{.git,config,scripts}
  for name in one two three four; do
    printf '{"archive_root": "%s", "targets": []}\n' "$folder/$name" >"$folder/$name.json"
  done
  for at in A B C; do
    cp "$repository/tests/self-locking-runner.sh" "$folder/$at/scripts/run.sh"
    cp "$folder/one.json" "$folder/$at/config/scrape-targets.json"
  done
  cp "$folder/four.json" "$folder/C/config/scrape-targets.json"
  cp "$folder/two.json" "$folder/copy.json"
  ln -s two.json "$folder/link.json"
  mkfifo "$folder"/{events,first.hold,second.hold}
  exec {events}<>"$folder/events" {first_hold}<>"$folder/first.hold" {second_hold}<>"$folder/second.hold"
  export SCRAPE_EVENTS=$folder/events
}

# launch NAME COMMAND...: starts it in $from. SCRAPE_EVENTS hears of its end, as
# of its scrape's begin; its pid is in NAME.pid.
launch() {
  local name=$1
  shift
  state[$name]=launched
  (
    cd "$from" || exit
    export SCRAPE_NAME=$name SCRAPE_HOLD=$folder/$name.hold
    (
      echo "$BASHPID" >"$folder/$name.pid"
      exec "$@" >/dev/null 2>"$folder/$name.err"
    ) &
    trap 'kill "$!" 2>/dev/null' TERM
    # The signal that is passed on ends a wait, too.
    until wait "$!"; code=$?; ! kill -0 "$!" 2>/dev/null; do :; done
    echo "exit $name $code" >"$SCRAPE_EVENTS"
  ) 2>/dev/null &
  launched+=("$!")
}

# next_of NAME: waits for its next event: "begin" or "exit CODE" becomes its state.
next_of() {
  local what who code
  while :; do
    read -r -t "$deadline" -u "$events" what who code || return 1
    [[ $what != begin ]] || began[$who]=yes
    state[$who]=$what${code:+ $code}
    [[ $who != "$1" ]] || return 0
  done
}

# begins NAME: waits until it scrapes, or has ended without.
begins() {
  [[ -v began[$1] ]] || next_of "$1" || return
  [[ -v began[$1] ]]
}

# ended NAME: waits until it has.
ended() {
  until [[ ${state[$1]} == exit* ]]; do
    next_of "$1" || return 1
  done
}

# let_go NAME: it may end its scrape.
let_go() { echo >"$folder/$1.hold"; }

# end_launched: ends what is left of it, and forgets what that had to say.
end_launched() {
  local pid fd
  ((${#launched[@]} > 0)) || return
  for pid in "${launched[@]}"; do
    kill "$pid" 2>/dev/null
  done
  wait "${launched[@]}" 2>/dev/null
  launched=()
  for fd in "$events" "$first_hold" "$second_hold"; do
    while read -r -t 0 -u "$fd"; do
      read -r -u "$fd" _
    done
  done
}

# runner NAME FORM: makes "command" the one that starts this runner, in $from.
runner() {
  local at=B program=scripts/run.sh words
  [[ $1 == second && $place != same ]] || at=A
  from=$folder/$at
  if [[ $place == afar ]]; then
    program=$from/$program
    from=$folder/C
  fi
  read -ra words <<<"${words_of[$kind $1]-}"
  case $env_file in
    named-by-words) words+=(--env-file "$folder/named.env") ;;
    skip-1-by-words) words+=("--env-file=$folder/skip-1.env") ;;
  esac
  command=("$program" "${words[@]//FOLDER/$folder}" a-target)
  [[ $2 == prefixed ]] || return
  command=(-- "${command[@]}")
  [[ $inner != keep ]] || command=(--inner-lock keep "${command[@]}")
  [[ -z ${told[$kind]-} ]] || command=(--config "$folder/${told[$kind]}.json" "${command[@]}")
  command=("$DCELOCK" "${command[@]}")
}

# archive_of NAME: the one that it scrapes.
archive_of() {
  case ${words_of[$kind $1]-} in
    '') echo one ;;
    *) echo two ;;
  esac
}

# lock_of NAME: the one that its dcelock takes.
lock_of() {
  local other=${told[$kind]-}${variable[$kind]-}
  case $other in
    '') echo "$folder/${scraped[$1]}/.dce-scrape.lock" ;;
    three) echo "$folder/three/.dce-scrape.lock" ;;
    *) echo "$folder/one/.dce-scrape.lock" ;;
  esac
}

# own_lock_of NAME: the one that the runner takes, empty for none.
own_lock_of() {
  case $env_file in
    named*) echo "$folder/named.lock" ;;
    the-same) echo "${wrapped[first]}" ;;
    skip-1*) ;;
    *) echo "$folder/${scraped[$1]}/.dce-scrape.lock" ;;
  esac
}

write_env_files() {
  local at
  echo "export DCE_SCRAPE_LOCK_FILE=\"$folder/named.lock\" # for both" >"$folder/named.env"
  echo "DCE_SKIP_SCRAPE_LOCK='1'" >"$folder/skip-1.env"
  printf '# locking is on\nDCE_SKIP_SCRAPE_LOCK=0\n' >"$folder/skip-0.env"
  for at in A B; do
    case $env_file in
      named) echo "DCE_SCRAPE_LOCK_FILE=$folder/named.lock" ;;
      the-same) echo "DCE_SCRAPE_LOCK_FILE=${wrapped[first]}" ;;
      skip-1) echo "DCE_SKIP_SCRAPE_LOCK=1" ;;
      skip-0) echo "DCE_SKIP_SCRAPE_LOCK=0" ;;
      *) echo "A_SETTING=that has nothing to do with locks" ;;
    esac >"$folder/$at/scrape.env"
    [[ $env_file != none ]] || rm "$folder/$at/scrape.env"
  done
  unset DCE_ENV_FILE
  case $env_file in
    named-by-variable) export DCE_ENV_FILE=$folder/named.env ;;
    skip-0-by-variable) export DCE_ENV_FILE=$folder/skip-0.env ;;
  esac
}

# may_refuse NAME FORM: with its own locking kept on, a runner finds the lock
# that its dcelock holds taken. --inner-lock keep asks for just that. An env
# file that says 0 overrules whatever dcelock hands down; then the operator is
# to be told what did it.
may_refuse() {
  [[ $2 == prefixed && ${wrapped[$1]} == "${owned[$1]}" ]] || return
  [[ $inner != keep ]] || return 0
  [[ $env_file == skip-0* ]] && grep -qE '^dcelock: .*(DCE_SKIP_SCRAPE_LOCK|scrape\.env|skip-0\.env)' "$folder/$1.err"
}

# crowded: the archives in which a scrape began before the last one's end.
crowded() {
  local name word running
  for name in one two three four; do
    running=0
    [[ ! -e $folder/$name/scrapes ]] || while read -r word _; do
      case $word in
        begin) ((++running < 2)) || echo "$name" ;;
        end) ((running--)) ;;
      esac
    done <"$folder/$name/scrapes"
  done
}

# pair FORM FORM: runs the two, the first until the second has begun or ended.
pair() {
  local name
  began=() state=([first]=unborn [second]=unborn)
  for name in one two three four; do
    : >"$folder/$name/scrapes"
  done
  runner first "$1"
  launch first "${command[@]}"
  if begins first; then
    runner second "$2"
    launch second "${command[@]}"
    next_of second
  fi
  # Who has begun may go on; who has not ended by then is stuck.
  for name in first second; do
    [[ ! -v began[$name] ]] || let_go "$name"
  done
  for name in first second; do
    [[ ${state[$name]} == unborn ]] || ended "$name" || state[$name]="stuck (last seen: ${state[$name]})"
  done
  end_launched
}

# what_it_says NAME: the line that tells why it did not begin.
what_it_says() { grep -m 1 'already running' "$folder/$1.err" || tail -n 1 "$folder/$1.err"; }

# go_on: not where one is stuck: others would take as long to find the same.
go_on() { [[ ${state[*]} != *stuck* ]] || exit 1; }

# judge FORM FORM: demands of a pair what the runners alone have shown.
judge() {
  local name wrong=() crowd
  crowd=$(crowded)
  for name in first second; do
    case ${state[$name]} in
      'exit 0' | unborn) ;;
      'exit 1') [[ ! -v began[$name] ]] || wrong+=("the $name began, and ended with 1") ;;
      *) wrong+=("the $name is no scrape and no refusal, but ${state[$name]}: $(what_it_says "$name")") ;;
    esac
  done
  if [[ ! -v began[first] ]]; then
    may_refuse first "$1" || wrong+=("the first is refused: $(what_it_says first)")
  elif [[ -v began[second] && $apart == yes ]]; then
    wrong+=("${crowd:+OVERLAP in archive $crowd: }both run at once, which the plain ones do not")
  elif [[ ! -v began[second] && $apart == no && ${scraped[first]} != "${scraped[second]}" ]]; then
    may_refuse second "$2" || wrong+=("the second, of another archive, is refused: $(what_it_says second)")
  fi
  pairs=$((pairs + 1))
  for name in "${wrong[@]}"; do
    echo "FAILED: $1/$2, --inner-lock ${inner:-default}, ${means[$kind]}, ${says_place[$place]}, ${says_env[$env_file]}: $name"
  done
  ((failures += ${#wrong[@]} > 0))
}

# alone: runs the pair without the prefix, which sets the measure, and checks
# that it is the one which the locks that the runners take imply.
alone() {
  local expected=no
  inner=
  pair plain plain
  [[ -z ${owned[first]} || ${owned[first]} != "${owned[second]}" ]] || expected=yes
  apart=yes
  if [[ -v began[second] ]]; then apart=no; fi
  [[ $apart == "$expected" && -s $folder/${scraped[first]}/scrapes ]] && return
  failures=$((failures + 1))
  echo "FAILED: plain/plain, ${means[$kind]}, ${says_place[$place]}, ${says_env[$env_file]}: kept apart: $apart instead of $expected: $(what_it_says first) / $(what_it_says second)"
}

# places: where this env file is tried. Two checkouts show what there is to be
# seen of the less usual ways; the time goes to the others.
places() {
  case $env_file in
    none | named) echo same other afar ;;
    *-by-*) echo other ;;
    *) echo same other ;;
  esac
}

# group KIND: all pairs that choose their configs so.
group() {
  local name forms
  kind=$1
  pairs=0 failures=0
  unset DCE_CONFIG_FILE
  [[ -z ${variable[$kind]-} ]] || export DCE_CONFIG_FILE=$folder/${variable[$kind]}.json
  for name in first second; do
    scraped[$name]=$(archive_of "$name")
    wrapped[$name]=$(lock_of "$name")
  done
  for env_file in "${env_files[@]}"; do
    for name in first second; do
      owned[$name]=$(own_lock_of "$name")
    done
    write_env_files
    for place in $(places); do
      alone
      go_on
      for inner in '' keep; do
        for forms in 'plain prefixed' 'prefixed plain' 'prefixed prefixed'; do
          pair "${forms% *}" "${forms#* }"
          judge "${forms% *}" "${forms#* }"
          go_on
        done
      done
    done
  done
  if ((failures > 0)); then
    echo "FAILED: $failures of $pairs pairs: ${means[$kind]}"
  else
    echo "ok: $pairs pairs do as without the prefix: ${means[$kind]}"
  fi
}

# lane NUMBER: its share of the groups.
lane() {
  local i
  for ((i = $1; i < ${#kinds[@]}; i += lanes)); do
    group "${kinds[i]}" >"$work/says-$i"
  done
}

# read_messages FD TEXT: waits until the second has said so.
read_messages() {
  local line
  : >"$work/err"
  while read -r -t "$deadline" -u "$1" line; do
    echo "$line" >>"$work/err"
    [[ $line != *"$2"* ]] || return 0
  done
  return 1
}

recorded() { grep -E "^$1=" "$folder/one/.dce-scrape.lock.meta" 2>/dev/null | head -1 | cut -d= -f2-; }

# hand_overs: a runner unlocks, and removes its record when the run that has
# waited may have written its own.
hand_overs() {
  local i lost=0 messages dcelock_pid times=10
  mkfifo "$folder/second.err"
  exec {messages}<>"$folder/second.err"
  inner='' kind=own place=other env_file=none
  for ((i = 0; i < times; i++)); do
    state=() began=()
    runner first plain
    launch first "${command[@]}"
    begins first || fail "hand-over: the runner does not begin"
    from=$folder/B
    launch second "$DCELOCK" --wait "$((2 * deadline))" -- scripts/run.sh
    read_messages "$messages" "pid $(<"$folder/first.pid")" || fail "hand-over: the waiting run does not name the runner"
    let_go first
    ended first || fail "hand-over: the runner does not end"
    begins second || fail "hand-over: the waiting run does not begin"
    # The runner has ended: what it removes, it has removed.
    dcelock_pid=$(<"$folder/second.pid")
    [[ $(recorded pid) == "$dcelock_pid" ]] || lost=$((lost + 1))
    let_go second
    ended second
    [[ ${state[second]} == 'exit 0' ]] || fail "hand-over: the waiting run: ${state[second]}"
    [[ ! -e $folder/one/.dce-scrape.lock.meta ]] || fail "hand-over: a record is left"
    end_launched
  done
  rm "$work/err"
  ((lost == 0)) || fail "$lost of $times runs that took over from a self-locking runner lost their record to its tidying up"
  pass "$times runs took over from a self-locking runner, and kept their record"
}

# readers: the runner understands the record of a dcelock, living and dead.
readers() {
  local dcelock_pid started
  inner='' kind=own place=same env_file=none
  runner first prefixed
  launch first "${command[@]}"
  begins first || fail "a prefixed run does not begin"
  dcelock_pid=$(<"$folder/first.pid")
  started=$(recorded started)
  cd "$folder/A" || exit
  if scripts/run.sh 2>"$work/err"; then
    fail "a runner scrapes beside a dcelock"
  fi
  says "Holder pid $dcelock_pid (running, started $started): scripts/run.sh"
  scripts/run.sh --reclaim-stale
  [[ $(recorded pid) == "$dcelock_pid" ]] || fail "a runner takes the record of a living dcelock for stale"
  kill -KILL "$dcelock_pid"
  ended first
  let_go first
  lock=$folder/one/.dce-scrape.lock
  eventually lock_is_free || fail "the lock stays held after the command's end"
  scripts/run.sh --reclaim-stale 2>"$work/err"
  says "reclaiming scrape lock; previous holder pid $dcelock_pid is not running"
  [[ ! -e $lock.meta ]] || fail "the record of a killed dcelock is left"
  pass "a self-locking runner names a dcelock as the holder, and reclaims the record of a dead one"
}

# aside NAME COMMAND...: runs it with a folder and processes of its own.
aside() {
  declare -A state began scraped wrapped owned
  launched=()
  trap end_launched EXIT
  trap 'exit 1' TERM
  make_folder "$1"
  "${@:2}"
}

failed=0
# await_all: until what runs aside has ended, well or not.
await_all() {
  local pid
  for pid in "${pids[@]}"; do
    wait "$pid" || failed=1
  done
  pids=()
}

# By themselves, as what they try is a matter of some milliseconds.
for check in hand_overs readers; do
  aside "$check" "$check" &
  pids=("$!")
  await_all
done
for ((i = 0; i < lanes; i++)); do
  aside "lane-$i" lane "$i" &
  pids+=("$!")
done
await_all
for ((i = 0; i < ${#kinds[@]}; i++)); do
  if grep -s '^ok: ' "$work/says-$i"; then continue; fi
  failed=1
  { cat "$work/says-$i" 2>/dev/null || echo "FAILED: not tried: ${means[${kinds[i]}]}"; } >&2
done
exit "$failed"
