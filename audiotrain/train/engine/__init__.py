"""What the Trainer runs: steps, loops, precision, memory.

batch_tree.py         Batches as lists of arrays and a structure
compiled_function.py  A function of a batch compiled over listed state
evaluation_loop.py    Averages weighted by batch, and one pass over a loader
fit_loop.py           The fit loop
grad_cache.py         GradCache: contrastive batches that are larger than memory
memory.py             Memory limits, gradient checkpointing
precision.py          Precision of a run
signals.py            Ctrl-C and SIGTERM end a run after its step
step_metrics.py       Numbers of training steps, read in batches
steps.py              The training and evaluation steps, each one compiled graph
update.py             Norm of the gradients; keeps the old state where a step is not finite
"""
