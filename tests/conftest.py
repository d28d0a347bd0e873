"""Common to all tests: the slow reference versions are importable, and torch uses one thread."""

import os
import sys
from pathlib import Path

# The tensors are small: more threads only wait for each other, above all on a busy machine. The
# variable counts when PyTorch is imported, in this process and in those that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # those that wait leave the cores to others

# Triton's kernels run on CPU tensors, in its interpreter. It asks when it is imported.
os.environ.setdefault("TRITON_INTERPRET", "1")

import torch

sys.path.insert(0, str(Path(__file__).parent))

torch.set_num_threads(1)
