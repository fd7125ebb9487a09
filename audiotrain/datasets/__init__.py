"""Files on disk to labelled items.

captions/      Captioned clips
chords/        Chord data
classes.py     Clips with classes
delimited.py   Rows of CSV and TSV, where a broken line costs no other line
items.py       The items of a corpus, and clips
pairing.py     Which label file belongs to which recording, from their names alone
paths.py       The files of a data folder by their names
search.py      What the searches of a folder for labelled recordings share
split_lists.py Lists of names that split a folder
splits.py      Split a corpus into train, valid and test by group, the same way on every run
summary.py     What reports of data share
synthesis/     Songs and sound scenes by synthesis
tables.py      Tables that list recordings
webdataset.py  Samples of WebDataset tars, read without extracting
youtube.py     Clips of videos on YouTube, as AudioCaps and AudioSet list them
"""
