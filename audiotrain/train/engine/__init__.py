"""What the Trainer runs: steps, loops, precision, memory.

batch_tree.py         A batch as the compiled step takes it
compiled_function.py  A function of a batch compiled over listed state
evaluation_loop.py    Averages weighted by what each batch counts, and one pass over a loader
fit_loop.py           The fit loop
grad_cache.py         Batches of a contrastive loss that are larger than memory
memory.py             Memory of a run
precision.py          Precision of a run
signals.py            Ctrl-C and SIGTERM end a run after its step, where all is whole
step_metrics.py       The numbers of training steps
steps.py              The training and evaluation steps, each one compiled graph
update.py             Whether a step's numbers are finite, and an exact choice between its new
"""
