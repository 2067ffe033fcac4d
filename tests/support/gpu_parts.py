"""Parts for `benchmarks.gpu` whose programs any machine can run."""

import json
import sys

from benchmarks.gpu.rows import Origin, Row
from benchmarks.gpu.schedule import Part, run

HERE = Origin("a device", "2.11.0", "3.12.3", "this commit")

# Measures `n`, after so many seconds, unless the key says that it fails.
PROGRAM = """
import json, sys, time
from pathlib import Path
from benchmarks.gpu.rows import Origin, measure_rows

def measure(key):
    if key.get("fails"):
        sys.exit("the kernel is not there")
    time.sleep(key.get("sleep", 0))
    return {"n": key["n"]}

part, folder, origin, *keys = sys.argv[1:]
keys = [json.loads(key) for key in keys]
measure_rows(part, Path(folder), keys, Origin(*json.loads(origin)), measure)
"""


def fake(folder, name, keys, seconds=0.1, long=False, program=PROGRAM):
    origin = json.dumps([HERE.device, HERE.torch, HERE.python, HERE.commit])
    command = [sys.executable, "-c", program, name, str(folder), origin]
    return Part(name, keys, command, lambda key: seconds, start_seconds=0.0, long=long)


def numbers(count, **more):
    return [{"n": n, **more} for n in range(count)]


def row(part, key, origin=HERE, seconds=None, failed=None):
    return Row(part, key, {}, seconds, failed, origin, "2026-11-26")


def measure(parts, folder, seconds=60.0):
    said = []
    failed = run(parts, folder, HERE, seconds, said.append, lambda: None)
    return failed, said
