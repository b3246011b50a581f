"""From weights files to frozen networks: the one place to import loaders from.

Read: StyleGAN2 as ``{"g_ema": ..., "latent_avg": ...}`` or a bare state dict; e4e checkpoints with
``state_dict`` (``encoder.`` and ``decoder.`` keys), ``latent_avg`` and ``opts``; the Delta Mapper
as a bare state dict; and each of them as safetensors with the same keys, where ``latent_avg`` is a
tensor among the others. All sizes are read off the shapes.
"""

from pipeline.models.e4e_weights import load_e4e
from pipeline.models.generator_weights import load_generator, mean_w
from pipeline.models.mapper_weights import load_mapper, mapper_state
from pipeline.models.weights_file import FileInfo, WeightsFile, read_weights

__all__ = [
    "FileInfo",
    "WeightsFile",
    "load_e4e",
    "load_generator",
    "load_mapper",
    "mapper_state",
    "mean_w",
    "read_weights",
]
