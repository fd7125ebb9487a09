"""The page of a song: a chart to play along with, in one HTML file.

document.py  One HTML file under a policy, of a template, styles, scripts and data
index.py     The list of several songs' pages
song.py      A song's page, and the bars of its chart
sound.py     Sound for pages

`assets/player.js` and `assets/elements.js` are also those of the report.
"""
