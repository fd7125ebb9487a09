"""Runs compared in a terminal and on an HTML page.

chord_player.py  Songs of a report
config_diff.py   `audiotrain config diff A B`
html.py          `audiotrain report RUN…`
run_reader.py    Settings, scores, history and problems of run folders
run_table.py     `audiotrain runs FOLDER`
"""
