"""Hugging Face's ClapModel with every weight and statistic random, for tests of equality and as a
peer: bias tables, scales and BatchNorm statistics that are new would hide faults."""

import numpy as np
import torch
from transformers import ClapConfig, ClapModel

from audiotrain.models.clap import CLAPConfig


def random_clap(config: CLAPConfig, gain: float = 1.0) -> ClapModel:
    """The model in eval mode; `gain` times the spread of matrices that keeps what they multiply."""
    torch.manual_seed(0)
    model = ClapModel(ClapConfig.from_dict(config.to_dict())).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name.lower() and name.endswith("weight"):
                weight.uniform_(0.5, 1.5)
            elif weight.ndim == 1:
                weight.normal_(std=0.1)
            elif weight.ndim:
                weight.normal_(std=0.5 if "table" in name else gain * weight[0].numel() ** -0.5)
        model.logit_scale_t.fill_(1.3)
        model.logit_scale_a.fill_(0.7)
    randomize_statistics(model)
    return model


def randomize_statistics(model: ClapModel, level: float = 0.0) -> None:
    """BatchNorm's, the same each time; those of the input, in dB, around `level`."""
    rng = np.random.default_rng(1)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            middle = level if "audio_encoder.b" in name else 0.0
            buffer.copy_(torch.tensor(rng.normal(middle, 1.0, buffer.shape)))
        if name.endswith("running_var"):
            buffer.copy_(torch.tensor(rng.uniform(0.5, 1.5, buffer.shape)))
