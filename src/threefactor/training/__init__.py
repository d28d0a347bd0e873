"""The training loop that every engine shares, its settings, run folders and checkpoints.

Start at `running`: `train` builds an `Experiment` from `Settings` and lets a `Trainer` fit it;
`resume` reads the folder with `Run` and lets the `Trainer` load the last checkpoint before it fits.
"""

from threefactor.training.build import build
from threefactor.training.evaluation import Evaluation, evaluate
from threefactor.training.experiment import Experiment
from threefactor.training.folder.run import Run
from threefactor.training.folder.writer import RunFolder
from threefactor.training.loop import InterruptedRunError, Trainer
from threefactor.training.overrides import override
from threefactor.training.running import open_run, resume, train
from threefactor.training.settings import Settings, make_settings
from threefactor.training.weights import load_weights

__all__ = [
    "Evaluation",
    "Experiment",
    "InterruptedRunError",
    "Run",
    "RunFolder",
    "Settings",
    "Trainer",
    "build",
    "evaluate",
    "load_weights",
    "make_settings",
    "open_run",
    "override",
    "resume",
    "train",
]
