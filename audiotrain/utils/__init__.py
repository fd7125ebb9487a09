"""Files, progress bars, trees of arrays, text.

arrays.py        Trees of arrays
cores.py         Cores that this process may use
errors.py        What a person can mend as one line each, bugs as tracebacks; exit codes
files.py         Files that appear whole or not at all; JSON and CSV
lazy.py          Public names of a package that are imported when they are first used
process_pool.py  Function calls shared out over worker processes that end with the last result
progress.py      Progress bars on a terminal, and lines now and then in a log file
text.py          Words and numbers for messages
torch_tensors.py PyTorch's tensors as NumPy arrays, without importing PyTorch
"""
