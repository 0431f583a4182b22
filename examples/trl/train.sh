#!/usr/bin/env bash
# RLOO on the shaped reward of a run, with TRL under accelerate and DeepSpeed; docs/frameworks.md
# explains it.
#
#   bash examples/trl/train.sh RUN OUT [arguments of TRL's RLOOConfig]
#
# RUN is the folder of a run up to `design` (infalign run CONFIG --until design --out RUN), OUT a new
# folder for data and checkpoints. On several machines put both on a shared disk, and start the script
# on each machine:
#
#   NODES=4 RANK=0 HEAD=10.0.0.1 bash examples/trl/train.sh …    # RANK=1, 2, 3 on the others
#
# To load a large reward model only once, start infalign serve-reward RUN, and pass --server ADDRESS.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
RUN=$(realpath "$1") OUT=$(realpath -m "$2")
shift 2
nodes=${NODES:-1} gpus=${GPUS:-8} rank=${RANK:-0}

# The settings that keep the objective: the design's β, group size, temperature, response length.
words=$(infalign export-prompts "$RUN" --for trl --out "$OUT/prompts-$rank")
mapfile -t objective <<< "$words"

accelerate launch --config_file "$here/accelerate.yaml" \
    --deepspeed_config_file "$here/zero3.json" \
    --num_machines "$nodes" --num_processes "$((nodes * gpus))" --machine_rank "$rank" \
    --main_process_ip "${HEAD:-127.0.0.1}" --main_process_port "${PORT:-29500}" \
    "$here/train.py" --run_folder "$RUN" --prompts "$OUT/prompts-$rank/train.parquet" "${objective[@]}" \
    --output_dir "$OUT/checkpoints" \
    --per_device_train_batch_size 8 \
    --gradient_accumulation_steps 4 \
    --learning_rate 1e-6 \
    --lr_scheduler_type cosine \
    --num_train_epochs 1 \
    --save_steps 50 \
    --report_to none \
    "$@"
