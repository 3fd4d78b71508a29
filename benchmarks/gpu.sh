#!/usr/bin/env bash
# All that needs a GPU, in under 8 minutes: correctness, decoding, embedding, training step. faiss is not needed.
#
#     benchmarks/gpu.sh [FOLDER]
#
# Records go to FOLDER as JSON, with what was printed as .txt (default: $OUT, else gpu_results). A step that fails or takes too
# long does not keep the others from running; the status is then 1. PYTHON names the interpreter (default: python3).
# DEVICE=cpu QUICK=1 tries the script out on a machine without a GPU.
set -u
folder=${1:-${OUT:-gpu_results}}
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
mkdir -p "$folder" || exit 2
folder=$(cd "$folder" && pwd) || exit 2
cd "$(dirname "$0")/.." || exit 2

source_size=(1536 864) target_size=(768 432) embed_size=(960 540) batch=96 arch=resnet50 repeats=3 images=48
compile=(--compile)
if [ -n "${QUICK:-}" ]; then
    source_size=(160 112) target_size=(128 112) embed_size=(160 112) batch=4 arch=resnet18 repeats=1 images=4
    compile=()
fi

failed=()

# step NAME SECONDS MODULE FLAGS...: the seconds of all steps together stay below 8 minutes
step() {
    local name=$1 limit=$2 module=$3
    shift 3
    echo "== $name"
    timeout --kill-after=5 "$limit" "$python" -m "$module" --device "$device" --out "$folder/$name.json" "$@" 2>&1 |
        tee "$folder/$name.txt"
    local status=${PIPESTATUS[0]}
    if [ "$status" -ne 0 ]; then
        failed+=("$name")
        echo "== $name failed: status $status$([ "$status" -eq 124 ] && echo " (longer than $limit s)")"
    fi
}

checks=()
[ -n "${QUICK:-}" ] && checks=(--checks descriptors fp16_step sync_bn_refused)
step checks 100 benchmarks.checks.gpu_checks "${checks[@]}"
step decode 30 benchmarks.speed.decode --images "$images"
step embed 120 benchmarks.speed.embed --rate_only --arch "$arch" --size "${embed_size[@]}" --batch "$batch" \
    --precisions fp32 bf16 "${compile[@]}" --repeats "$repeats"
training=(benchmarks.speed.train_step --arch "$arch" --size "${source_size[@]}" --target_size "${target_size[@]}"
    --batch_size 2 --repeats "$repeats")
step train_step 75 "${training[@]}" --precisions fp32 bf16
# by itself: what compiles for too long takes nothing else along (a second run finds it compiled)
[ ${#compile[@]} -gt 0 ] && step train_step_compiled 150 "${training[@]}" --precisions bf16 "${compile[@]}"

if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}"
    exit 1
fi
echo "all done: $folder"
