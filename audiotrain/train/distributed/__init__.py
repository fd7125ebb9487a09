"""Training on several processes.

ranks.py            The few places where ranks meet
sync_batch_norm.py  Batch normalisation over the batches of all ranks, as if they were one batch
watchdog.py         Ranks that are lost
"""
