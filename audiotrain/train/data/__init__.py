"""Datasets, loaders, samplers, collation.

collate.py   Makes batches from lists of samples
datasets.py  Datasets of arrays, and parts of datasets
loader.py    Dataset and DataLoader
samplers.py  Samplers
workers.py   Threads and processes that load batches
"""
