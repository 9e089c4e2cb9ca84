#!/bin/bash
# Meta-training on all cards of all nodes together, then the sketches: each process claims shards, none waits for another.
#     sbatch --nodes=2 examples/slurm/torchrun.sh recipe.yaml
# Called again, it goes on from where it was stopped; recipe.output must lie on a file system that all nodes see.
#SBATCH --job-name=gradex-sketch
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=08:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / SLURM_GPUS_PER_NODE))
srun torchrun --nnodes="$SLURM_NNODES" --nproc-per-node="$SLURM_GPUS_PER_NODE" \
  --rdzv-id="$SLURM_JOB_ID" --rdzv-backend=c10d --rdzv-endpoint="$head:29500" \
  -m gradex_fast sketch "$@"
