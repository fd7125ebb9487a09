"""Scores, plots and reports.

chord_report.py           Numbers, tables and pictures of recognised chords
chords.py                 mir_eval's scores of chords along time
classification.py         Accuracy, top-k, confusion matrices, rankings
classification_report.py  Numbers, tables and pictures of classified items
linear_probe.py           Classes of embeddings: zero-shot, and by logistic regression
plots/                    Figures and tables: scores, curves, confusions, chords along time
report/                   Runs compared in a terminal and on an HTML page
retrieval.py              Ranks and recalls of clips and captions, from their embeddings
retrieval_report.py       Numbers, tables and pictures of retrieval
song_page/                The page of a song, to play along with
"""
