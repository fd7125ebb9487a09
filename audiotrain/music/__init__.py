"""Chord classes, chord labels, segments, beats, keys.

beats.py          Beats and bars of a song
chord_classes.py  Chord labels <-> three classes (type, root, bass note)
chord_labels.py   Chord names as people write them -> labels in Harte's grammar
chord_names.py    Chords as musicians read them: letters by key, German, Roman numerals
fingerings.py     Fingerings of chords on guitar and ukulele
keys.py           The key of a song, from its chords
segments.py       Chord segments, label frames and .lab files
"""
