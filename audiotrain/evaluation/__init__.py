"""Scores, pictures and reports.

chords.py          Scores of chords along time by mir_eval
classification.py  Accuracy, top-k, confusion matrices, and mir_eval's chord scores
linear_probe.py    What embeddings know of classes
plots/             Pictures and tables of scores, training curves and chords along time
report/            Runs compared in a terminal and on an HTML page
retrieval.py       Retrieval both ways between clips and captions, from their embeddings, in
"""
