"""Files on disk to labelled items.

captions/      Captioned clips
chords/        Chord data
classes.py     Clips with classes, one or several each
items.py       Captioned clips
pairing.py     Which label file belongs to which recording, from their names alone
paths.py       The files of a data folder by their names
splits.py      Split a corpus into train, valid and test by group, the same way on every run
summary.py     Lines that reports of data share
synthesis/     Songs and sound scenes by synthesis
tables.py      Tables that list recordings and their chords
webdataset.py  Samples of WebDataset tars, found without extracting
"""
