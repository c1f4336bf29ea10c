#!/usr/bin/env bash
# The chapter's experiment: two models of one size and budget, one trained on wiki, one on baike; then each tuned on
# questions and answers; the same three prompts through all four. Run it with `make experiment`.
#
# As it stands it fetches the full corpora and trains gpt2-small for five epochs: days on one GPU. Smaller, on a CPU:
#
#   make experiment SOURCE=~/Downloads MODEL=mini VOCAB=8000 LENGTH=512 \
#       TRAIN="--max-steps 300 --batch-size 8" TUNE="--max-steps 60 --batch-size 8"
#
# Every step is a `corpus` command: interrupted, the same line goes on where it was.
set -euo pipefail

corpus=${CORPUS:-corpus}
export CORPUS_WORKSPACE=${CORPUS_WORKSPACE:-experiment-workspace}
model=${MODEL:-gpt2-small}
read -ra train <<< "${TRAIN:---epochs 5 --batch-size 64}"
read -ra tune <<< "${TUNE:---epochs 2 --batch-size 64}"
source=()
[ -z "${SOURCE:-}" ] || source=(--source "$SOURCE")
datasets=(--dataset wiki2019zh --dataset baike2018qa)

"$corpus" ingest "${datasets[@]}" ${source[@]+"${source[@]}"}
"$corpus" tokenizer "${datasets[@]}" --vocab-size "${VOCAB:-32000}"
"$corpus" pack "${datasets[@]}" --seq-length "${LENGTH:-1024}"
"$corpus" pack --form chat --dataset baike2018qa --seq-length "${LENGTH:-1024}"

for corpus_name in wiki2019zh baike2018qa; do
    "$corpus" train --dataset "$corpus_name" --model "$model" --run "$corpus_name" "${train[@]}"
    "$corpus" train --objective sft --dataset baike2018qa --model "$model" --run "$corpus_name-sft" \
        --init "$CORPUS_WORKSPACE/models/$corpus_name" --learning-rate "${TUNE_RATE:-1e-4}" "${tune[@]}"
done

for run in wiki2019zh baike2018qa wiki2019zh-sft baike2018qa-sft; do
    echo "=== $run"
    "$corpus" evaluate --model "$run" "${datasets[@]}"
done

prompts=(
    '秦始皇，名嬴政，是中国历史上著名的君主，也是中国历史上第一个使用“皇帝”称号的君主。他出生于公元前259年，卒于'
    '我感冒了怎么办？'
    '我肚子痛了，要怎么办？'
)
settings=(--seed 1 --temperature 0.8 --top-k 30 --max-new-tokens 120)
for run in wiki2019zh baike2018qa; do
    echo "=== $run continues"
    for prompt in "${prompts[@]}"; do
        "$corpus" sample --model "$run" --prompt "$prompt" "${settings[@]}"
    done
    echo "=== $run-sft answers"
    for prompt in "${prompts[@]}"; do
        printf '%s\n' "$prompt" | "$corpus" sample --model "$run-sft" --chat "${settings[@]}"
    done
done
