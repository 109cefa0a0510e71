"""Settings of the whole test set."""

import torch

torch.set_num_threads(1)
