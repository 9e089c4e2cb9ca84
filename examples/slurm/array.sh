#!/bin/bash
# The sketches by an array of tasks with one card each, which know nothing of one another: task i makes every n-th shard.
#     gradex-fast meta recipe.yaml                        # first, once
#     sbatch --array=0-31 examples/slurm/array.sh recipe.yaml
#     gradex-fast run recipe.yaml                         # last: makes what is missing, chooses, fine-tunes
#SBATCH --job-name=gradex-shards
#SBATCH --ntasks=1
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --time=02:00:00
#SBATCH --requeue
set -euo pipefail

export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
srun gradex-fast sketch "$@" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
