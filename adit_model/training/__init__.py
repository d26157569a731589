"""The training stages: `python -m adit_model.training autoencoder|denoiser|prior`.

Needs torch, numpy and safetensors only; rich and matplotlib are used where they are installed.
`torchrun --nproc-per-node N -m adit_model.training ...` does one run in N processes. A run is a
folder: `model/` (EMA weights, loadable at any time), `state.safetensors` (to resume), `kept/`
(earlier checkpoints), `training.json`, `log.jsonl`, `loss.png`.

Add a setting as a field of `settings.TrainingConfig` (it becomes an option), a stage as a loss
of `trainer.Trainer` with its new model in `stages`, an optimizer in `optimizers`.
"""

from adit_model.training.distributed import World
from adit_model.training.running import run
from adit_model.training.settings import STAGES, TrainingConfig, TrainingError
from adit_model.training.stages import continued_model, initial_model
from adit_model.training.trainer import Trainer

__all__ = [
    "STAGES",
    "Trainer",
    "TrainingConfig",
    "TrainingError",
    "World",
    "continued_model",
    "initial_model",
    "run",
]
