"""Models in MLX.

chords/    Chord models
clap/      CLAP
layers.py  Blocks that models share
lora.py    LoRA
"""
