#!/usr/bin/env bash
# run.sh FOLDER [ARGUMENTS]: unpack this bundle into FOLDER, if that was not done yet, and run
# `python -m benchmarks.gpu ARGUMENTS` there; run.sh FOLDER -- COMMAND runs any other command there,
# such as one of mnist-bench's. PYTHON says which Python has torch; no network needed.
set -euo pipefail
shopt -s nullglob
if [ $# -eq 0 ]; then
  echo "Say where to unpack: bash run.sh FOLDER, and behind it what python -m benchmarks.gpu takes." >&2
  exit 2
fi
bundle=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift

commit=$(cat "$bundle/commit")
if [ -e "$folder/.unpacked" ] && [ "$(cat "$folder/.unpacked")" != "$commit" ]; then
  echo "$folder holds commit $(cat "$folder/.unpacked"), and this is $commit: unpack into another folder." >&2
  exit 2
fi
if [ ! -e "$folder/.unpacked" ]; then
  tar -xzf "$bundle/project.tar.gz" -C "$folder"
  cp -R "$bundle/results/." "$folder/benchmarks/results"
  mkdir -p "$folder/data/MNIST/raw" "$folder/packages"
  for file in "$bundle"/mnist/*.gz; do
    gunzip -c "$file" > "$folder/data/MNIST/raw/$(basename "$file" .gz)"
  done
  for wheel in "$bundle"/wheels/*.whl; do
    name=$(basename "$wheel"); name=${name%%-*}
    if ! "$python" -c "from importlib.metadata import version; version('$name')" 2> /dev/null; then
      "$python" -m pip install --quiet --no-index --no-deps --target "$folder/packages" "$wheel"
    fi
  done
  echo "$commit" > "$folder/.unpacked"
fi

export PYTHONPATH=$folder/packages${PYTHONPATH:+:$PYTHONPATH} MNIST_BENCH_DATA=$folder/data
# What is unpacked is no checkout, even if it lies in one.
export GIT_CEILING_DIRECTORIES=${folder%/*} GIT_COMMIT=$commit
cd "$folder"
if [ "${1-}" = -- ]; then
  shift
  exec "$@"
fi
exec "$python" -m benchmarks.gpu "$@"
