#!/usr/bin/env bash
# Runs all tests in two parts beside each other: those that start processes, break them and wait, and those that compute.
# One after the other they leave a core idle for most of the time.
set -uo pipefail
pytest=$1
log=$(mktemp)
"$pytest" -m "chaos or e2e" >"$log" 2>&1 &
beside=$!
trap 'kill "$beside" 2>/dev/null; rm -f "$log"' EXIT
printf '==> tests that start processes run beside the others; they are printed at the end\n'
"$pytest" -m "not chaos and not e2e"
first=$?
printf '==> waiting for the tests that start processes\n'
wait "$beside"
second=$?
cat "$log"
exit $((first > second ? first : second))
