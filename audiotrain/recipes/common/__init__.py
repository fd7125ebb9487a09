"""What the recipes share.

cli.py  Commands of a recipe
run.py  Run folders of recipes
"""
