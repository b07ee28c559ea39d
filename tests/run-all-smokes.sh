#!/usr/bin/env bash
# Runs every smoke in this folder and says which failed.
set -u
folder=$(dirname "$0")
passed=0
failed=()
for smoke in "$folder"/*-smoke.sh; do
  echo "== ${smoke##*/}"
  if "$smoke"; then
    passed=$((passed + 1))
  else
    failed+=("${smoke##*/}")
  fi
done
if ((${#failed[@]} > 0)); then
  printf 'failed: %s\n' "${failed[@]}"
fi
echo "$passed passed, ${#failed[@]} failed"
((${#failed[@]} == 0))
