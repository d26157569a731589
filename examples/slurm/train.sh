#!/bin/bash
# One training run on several nodes, a process a GPU. Sent again, or requeued, it goes on.
#
#   sbatch examples/slurm/train.sh runs/denoiser denoiser --data data/crystals \
#       --autoencoder runs/autoencoder/model --minutes 1400 --tokens 49152
#
# The first argument is the run folder, which all nodes see; the others are those of `adit train`.
#SBATCH --job-name=adit-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail

out=$1
shift
resume=()
if [ -e "$out/state.safetensors" ]; then
  resume=(--resume)
fi
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun \
  --nnodes "$SLURM_NNODES" \
  --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
  --rdzv-id "$SLURM_JOB_ID" \
  --rdzv-backend c10d \
  --rdzv-endpoint "$first:$((20000 + SLURM_JOB_ID % 10000))" \
  -m adit_model.training "$@" --out "$out" "${resume[@]}"
