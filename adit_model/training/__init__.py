"""The training stages: `python -m adit_model.training autoencoder|denoiser|prior`.

Add a setting as a field of `trainer.TrainingConfig` (it becomes an option), a stage as a loss
of `trainer.Trainer` with its new model in `stages`, an optimizer in `optimizers`.
"""

from adit_model.training.stages import continued_model, initial_model, run
from adit_model.training.trainer import STAGES, Trainer, TrainingConfig, TrainingError

__all__ = [
    "STAGES",
    "Trainer",
    "TrainingConfig",
    "TrainingError",
    "continued_model",
    "initial_model",
    "run",
]
