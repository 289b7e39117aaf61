#!/usr/bin/env bash
# Go on with a long bench where its committed runs end, on any machine:
#   bash benchmarks/go_on.sh zoo [options of kdzoo bench, such as --jobs 2]
# Its teachers' weights are committed beside the runs, in results/NAME/teachers: another kind of CPU would train others.
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:?expected the name of a file in configs/benches, such as zoo}
shift
cached="${KDZOO_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kdzoo}/teachers/runs"
committed="results/$name/teachers"

keep_teachers() {
    for id in $(cat "results/$name"/runs/*/run.json | grep -oE 'run:none-[0-9a-f]{12}' | sort -u | cut -d: -f2); do
        [ -e "$cached/$id/result.json" ] || continue  # still in training
        mkdir -p "$committed/$id"
        cp -n "$cached/$id"/{run.json,result.json,metrics.jsonl,student.safetensors} "$committed/$id/"
    done
}

mkdir -p "$cached" "$committed"
cp -rn "$committed/." "$cached/"
trap keep_teachers EXIT  # an interrupt too
kdzoo bench -c "configs/benches/$name.yaml" --results results "$@"
