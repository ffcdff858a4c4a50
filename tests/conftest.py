import os

import torch

torch.set_num_threads(1)
for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):  # of make test, under which a make of a test would say where it works
    os.environ.pop(name, None)
