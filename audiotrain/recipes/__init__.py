"""Programs that users start.

chords/    Chord recognition
clap/      CLAP
classify/  Classifiers of clips
common/    What the recipes share
"""
