#!/usr/bin/env bash
# RLOO on the shaped reward of a run, with OpenRLHF (checked with 0.11.2); docs/frameworks.md
# explains it.
#
#   bash examples/openrlhf/train.sh RUN OUT [arguments of OpenRLHF]
#
# RUN is the folder of a run up to `design` (infalign run CONFIG --until design --out RUN), OUT a new
# folder for data and checkpoints. On several machines RUN, OUT and the model must be on a shared disk,
# and infalign must be installed on each machine. Start Ray first:
#
#   ray start --head --port 6379 --dashboard-host 0.0.0.0    # on the first machine
#   ray start --address FIRST:6379                           # on every other machine
#   NODES=4 bash examples/openrlhf/train.sh …                # on the first
set -euo pipefail
RUN=$(realpath "$1") OUT=$(realpath -m "$2")
shift 2
nodes=${NODES:-1} gpus=${GPUS:-8}

# The settings that keep the objective: the design's β, the KL (k1) in the reward, RLOO, no clipping.
words=$(infalign export-prompts "$RUN" --for openrlhf --out "$OUT/prompts")
mapfile -t objective <<< "$words"

ray job submit --address http://127.0.0.1:8265 -- \
    python3 -m openrlhf.cli.train_ppo_ray "${objective[@]}" \
    --train.colocate_all \
    --actor.num_nodes "$nodes" --actor.num_gpus_per_node "$gpus" \
    --ref.num_nodes "$nodes" --ref.num_gpus_per_node "$gpus" \
    --vllm.num_engines "$((nodes * gpus))" --vllm.tensor_parallel_size 1 \
    --vllm.gpu_memory_utilization 0.6 --vllm.enable_sleep --ds.enable_sleep \
    --ds.zero_stage 3 --ds.param_dtype bf16 --actor.gradient_checkpointing_enable \
    --actor.adam.lr 1e-6 \
    --data.max_len 2048 \
    --rollout.batch_size 128 --rollout.micro_batch_size 8 \
    --train.batch_size 1024 --train.micro_batch_size 8 \
    --train.num_episodes 1 \
    --ckpt.output_dir "$OUT/model" --ckpt.path "$OUT/checkpoints" --ckpt.save_steps 50 \
    "$@"
