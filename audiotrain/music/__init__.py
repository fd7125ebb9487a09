"""Chord classes, chord labels, segments.

chord_classes.py  Chord labels <-> three classes (type, root, bass note)
chord_labels.py   Chord names as people write them -> labels in Harte's grammar
segments.py       Chord segments, label frames and .lab files
"""
