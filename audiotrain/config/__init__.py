"""Settings: a dataclass from presets, files and flags.

builder.py      The settings of a dataclass, read from files and values
cli.py          Settings
coerce.py       Text of a file or a flag -> the value that a setting's type asks for, or what
diff.py         Nested settings as flat rows, and the differences of two
import_path.py  Classes and functions by import path, for settings that name one
yaml_files.py   YAML and JSON files of settings as nodes that know their lines, with the files
"""

from audiotrain.config.cli import (
    choose_command,
    load,
    preset_names,
    read,
    save,
    stated,
    to_plain,
    wants_help,
)

__all__ = [
    "choose_command",
    "load",
    "preset_names",
    "read",
    "save",
    "stated",
    "to_plain",
    "wants_help",
]
