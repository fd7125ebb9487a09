"""Datasets, loaders, samplers, collation.

collate.py   Lists of samples become batches
datasets.py  Plain modules and arrays as what the Trainer takes
loader.py    Dataset and DataLoader
samplers.py  Samplers
workers.py   Load batches in threads or processes, in the order asked for
"""
