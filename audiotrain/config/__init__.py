"""Settings: a dataclass from presets, files and flags.

diff.py         Nested settings as flat rows, and the differences of two
flags.py        The words of a command line as settings
help.py         `--help`, as tyro prints it
import_path.py  Classes and functions by import path, for settings that name one
load.py         Settings from defaults, presets, files and flags; what ran is saved again
merge.py        Files, flags and Python values merged, then validated at once
refusals.py     What pydantic refuses, in a line for each setting
schema.py       Settings dataclasses whose types say what a value may be; shared types
words.py        Words of files and command lines as the types of settings
yaml_files.py   YAML and JSON files of settings, with the files they include
"""

from audiotrain.config.help import field_docs, first_sentence, print_commands
from audiotrain.config.load import choose_command, load, read, save, stated, to_plain, wants_help
from audiotrain.config.schema import conform
from audiotrain.config.yaml_files import preset_names, read_yaml

__all__ = [
    "choose_command",
    "conform",
    "field_docs",
    "first_sentence",
    "load",
    "preset_names",
    "print_commands",
    "read",
    "read_yaml",
    "save",
    "stated",
    "to_plain",
    "wants_help",
]
