#!/usr/bin/env bash
# Shows the main job on a throw-away archive root.
set -u
# shellcheck source=tests/smoke-lib.sh
. "$(dirname "$0")/smoke-lib.sh"
cd "$work" || exit 1
export PATH=${DCELOCK%/*}:$PATH
show() { echo; echo "\$ $*"; }

echo "An archive root, $archive_root, and two configs that name it."
mkdir a b
cp "$config" a/scrape-targets.json
cp "$config" b/scrape-targets.json
mkfifo go

show "dcelock --config a/scrape-targets.json -- ./scrape.sh --target KotOR &"
printf '#!/bin/sh\nread -r _ <go\necho "the scrape is done"\n' >scrape.sh
chmod +x scrape.sh
dcelock --config a/scrape-targets.json -- ./scrape.sh --target KotOR &
holder=$!
pids+=("$holder")
eventually grep -qs "^pid=$holder$" "$lock.meta" || fail "the run does not begin"

show "cat $lock.meta"
cat "$lock.meta"

show "dcelock --config b/scrape-targets.json -- ./scrape.sh --target KotOR"
dcelock --config b/scrape-targets.json -- ./scrape.sh --target KotOR
status=$?
echo "(exit status $status)"
[[ $status -eq 1 ]] || fail "the second run was not refused"

show "wait"
echo >go
wait "$holder" || fail "the first run failed"

show "dcelock --config b/scrape-targets.json -- echo 'the lock is free again'"
dcelock --config b/scrape-targets.json -- echo 'the lock is free again' || fail "the lock is not free"
[[ ! -e $lock.meta ]] || fail "a record is left"
