"""Training on several processes.

ranks.py            Communication between ranks (started by `mlx.launch`), or one process
sync_batch_norm.py  Batch normalisation over the batches of all ranks, as if they were one batch
watchdog.py         Ends a process that waits too long for other ranks
"""
