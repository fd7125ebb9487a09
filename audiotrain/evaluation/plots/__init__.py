"""Pictures and tables of scores, training curves and chords along time.

chord_timeline.py  Chords along time, reference above estimate
confusion.py       Confusion matrices as pictures, CSV and JSON
curves.py          Curves of training and validation
retrieval.py       Recall curves, similarity matrices, tables of retrieval scores
style.py           Colours, axes, legends and titles of all pictures
tables.py          Scores as a picture, rows as CSV
"""

from audiotrain.evaluation.plots.chord_timeline import chords_picture, timeline
from audiotrain.evaluation.plots.confusion import confusion_csv, confusion_json, confusion_picture
from audiotrain.evaluation.plots.curves import curves_picture
from audiotrain.evaluation.plots.tables import scores_picture, table_csv

__all__ = [
    "chords_picture",
    "confusion_csv",
    "confusion_json",
    "confusion_picture",
    "curves_picture",
    "scores_picture",
    "table_csv",
    "timeline",
]
