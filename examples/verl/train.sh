#!/usr/bin/env bash
# RLOO on the shaped reward of a run, with verl (checked with 0.9.1); docs/frameworks.md explains it.
#
#   bash examples/verl/train.sh RUN OUT [overrides of verl]
#
# RUN is the folder of a run up to `design` (infalign run CONFIG --until design --out RUN), OUT a new
# folder for data and checkpoints. On several machines RUN, OUT and the model must be on a shared disk,
# infalign must be installed on each machine, and Ray must run:
#
#   ray start --head --port 6379            # on the first machine
#   ray start --address FIRST:6379          # on every other machine
#   NODES=4 bash examples/verl/train.sh …   # on the first
set -euo pipefail
RUN=$(realpath "$1") OUT=$(realpath -m "$2")
shift 2

# The settings that keep the objective: the design's β, the KL (k1) in the reward, RLOO without scaling.
words=$(infalign export-prompts "$RUN" --for verl --out "$OUT/prompts")
mapfile -t objective <<< "$words"

python3 -m verl.trainer.main_ppo "${objective[@]}" \
    data.train_batch_size=128 \
    data.max_prompt_length=1024 \
    data.filter_overlong_prompts=True \
    data.truncation=error \
    actor_rollout_ref.actor.optim.lr=1e-6 \
    actor_rollout_ref.actor.ppo_mini_batch_size=128 \
    actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8 \
    actor_rollout_ref.model.enable_gradient_checkpointing=True \
    actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=16 \
    actor_rollout_ref.ref.fsdp_config.param_offload=True \
    actor_rollout_ref.rollout.name=vllm \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6 \
    actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
    actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=16 \
    trainer.nnodes="${NODES:-1}" \
    trainer.n_gpus_per_node="${GPUS:-8}" \
    trainer.total_epochs=1 \
    trainer.save_freq=50 \
    trainer.test_freq=25 \
    trainer.logger=[console] \
    trainer.default_local_dir="$OUT/checkpoints" \
    "$@"
