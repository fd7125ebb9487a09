"""Runs compared in a terminal and on an HTML page.

chord_player.py  Songs of a report
config_diff.py   `audiotrain config diff A B`
html.py          `audiotrain report RUN…`
run_reader.py    Run folders as they lie on disk
run_table.py     `audiotrain runs FOLDER`
"""
