"""Models in MLX.

chords/         Chord models
clap/           CLAP
classifiers.py  Clip classifiers over log-mel spectrograms or embeddings
layers.py       Blocks that models share
lora.py         LoRA
"""
