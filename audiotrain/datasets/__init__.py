"""Files on disk to labelled items.

captions/      Captioned clips
chords/        Chord data
classes.py     Clips with classes
items.py       The items of a corpus, and clips
pairing.py     Which label file belongs to which recording, from their names alone
paths.py       The files of a data folder by their names
search.py      What the searches of a folder for labelled recordings share
splits.py      Split a corpus into train, valid and test by group, the same way on every run
summary.py     What reports of data share
synthesis/     Songs and sound scenes by synthesis
delimited.py   Rows of CSV and TSV, where a broken line costs no other line
tables.py      Tables that list recordings
webdataset.py  Samples of WebDataset tars, read without extracting
"""
