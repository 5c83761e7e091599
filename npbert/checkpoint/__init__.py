"""Bytes on disk to parameters, and back: configs, safetensors, pickles, folders, saving.

Nothing in a file is believed before it is checked, and nothing in it is ever executed.  Here are
the names that a model's files have; there is no NumPy, so that a download needs none.
"""

from typing import Final

CONFIG: Final = "config.json"
MODULES: Final = "modules.json"  # of sentence-transformers
MODULES_LIMIT: Final = 64  # modules of a model; those that people make have at most 5
INDEX: Final = ".index.json"  # of shards
SAFETENSORS: Final = "model.safetensors"
PICKLE: Final = "pytorch_model.bin"
# In the order in which they are looked for, as in transformers.
WEIGHTS: Final = (SAFETENSORS, f"{SAFETENSORS}{INDEX}", PICKLE, f"{PICKLE}{INDEX}")
