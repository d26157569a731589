"""Parsl's configuration for a Slurm cluster: up to 8 jobs of a node with 4 GPUs, a worker a GPU.

Copy it and write the partition and the environment of your site into it.
"""

from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import SlurmProvider

config = Config(
    executors=[
        HighThroughputExecutor(
            available_accelerators=4,
            provider=SlurmProvider(
                partition="gpu",
                nodes_per_block=1,
                max_blocks=8,
                walltime="04:00:00",
                scheduler_options="#SBATCH --gpus-per-node=4",
                worker_init="source ~/adit/.venv/bin/activate",
            ),
        )
    ],
    retries=0,  # the campaign has its own
)
