#!/bin/bash
# A campaign: this job is its driver and needs a core; Parsl sends jobs of its own for the work.
# Sent again, it goes on.
#
#   sbatch examples/slurm/campaign.sh campaign examples/slurm/site.py --num 10000 --relaxer chgnet
#
# The arguments are the folder, which all nodes see, Parsl's configuration of the cluster, and those
# of `adit discover`.
#SBATCH --job-name=adit-campaign
#SBATCH --cpus-per-task=1
#SBATCH --time=48:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail

out=$1
site=$2
shift 2
if [ -e "$out/results.db" ]; then
  exec adit discover --resume "$out" --executor "parsl:$site"
fi
exec adit discover --out "$out" --executor "parsl:$site" "$@"
