#!/bin/bash
# Tests one feature of a task of the demo:  runner.sh TESTS_PATCH [FEATURE_PATCH]
#
# Both are names of files below /patches. Applies them to /workspace/repo, runs every test below tests/
# (the repository's own ones too) and prints the line that pytest would. Ends with 0 only if all passed.
set -u
patches=/patches

# The demo's scripted infrastructure: COOPERBENCH_DEMO_EVAL_STRIKES lists "pair@attempt=kind", and whoever
# runs this says which pair and attempt it is (see cooperbench_assets/demo/injected_faults.py).
this="${COOPERBENCH_ASSETS_PAIR:-}@${COOPERBENCH_ASSETS_ATTEMPT:-1}"
for strike in ${COOPERBENCH_DEMO_EVAL_STRIKES:-}; do
  case "$strike" in
    "$this=oom") kill -KILL $$ ;;
    "$this=disk") echo "error: could not write the build folder: No space left on device" >&2; exit 1 ;;
    "$this=timeout") exec sleep 86400 ;;
  esac
done

cd /workspace/repo || exit 2
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  echo "usage: runner.sh TESTS_PATCH [FEATURE_PATCH]" >&2
  exit 2
fi
for name in "$@"; do
  echo "Applying $name"
  if ! git apply --whitespace=nowarn "$patches/$name"; then
    echo "Failed to apply $name"
    exit 1
  fi
done

exec python3 -S -E -B - <<'PROGRAM'
"""Runs every test_* function in tests/test_*.py; standard library only, quick to start."""
import os
import sys
import time

started = time.perf_counter()
sys.path.insert(0, os.getcwd())
passed, failures, errors = 0, [], 0


def failure(name):
    import traceback

    failures.append((name, traceback.format_exc(limit=-3)))


for name in sorted(os.listdir("tests")):
    if not (name.startswith("test_") and name.endswith(".py")):
        continue
    path = os.path.join("tests", name)
    with open(path, encoding="utf-8") as file:
        source = file.read()
    module = {"__name__": name[:-3], "__file__": path}
    try:
        exec(compile(source, path, "exec"), module)
    except Exception:
        failure(path)
        errors += 1
        print(path, "E")
        continue
    marks = ""
    for key, test in list(module.items()):
        if not (key.startswith("test_") and callable(test)):
            continue
        try:
            test()
        except Exception:
            failure(f"{path}::{key}")
            marks += "F"
        else:
            passed += 1
            marks += "."
    print(path, marks)

for name, text in failures:
    print(f"\n____ {name} ____\n{text}")
failed = len(failures) - errors
counts = [(failed, "failed"), (passed, "passed"), (errors, "error" if errors == 1 else "errors")]
summary = ", ".join(f"{count} {word}" for count, word in counts if count) or "no tests ran"
print(f"==== {summary} in {time.perf_counter() - started:.2f}s ====")
sys.exit(1 if failures or not passed else 0)
PROGRAM
