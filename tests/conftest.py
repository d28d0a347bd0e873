"""Common to all tests: the slow reference versions are importable, and torch uses one thread."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

# The tensors are small: more threads only wait for each other, above all on a busy machine.
torch.set_num_threads(1)
