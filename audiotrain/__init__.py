"""Train audio models on one's own machine with MLX."""
