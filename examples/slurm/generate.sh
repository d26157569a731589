#!/bin/bash
# A million crystals by an array of jobs, each with one GPU. Sent again, it makes what is missing.
#
#   sbatch examples/slurm/generate.sh big --num 1000000 --shard-size 10000
#   adit merge big --out all.extxyz
#
# The first argument is the folder, which all nodes see; the others are those of `adit generate`.
#SBATCH --job-name=adit-generate
#SBATCH --array=0-15
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@60
set -euo pipefail

out=$1
shift
srun adit generate --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --out "$out" "$@"
