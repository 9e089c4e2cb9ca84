#!/bin/bash
# After the sketches: the choice (CPU), the final fine-tuning on all cards of one node, the report.
#     sbatch --dependency=afterok:JOB examples/slurm/finish.sh recipe.yaml
#SBATCH --job-name=gradex-finish
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=08:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail

export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / SLURM_GPUS_PER_NODE))
srun torchrun --standalone --nproc-per-node="$SLURM_GPUS_PER_NODE" -m gradex_fast run "$@"
