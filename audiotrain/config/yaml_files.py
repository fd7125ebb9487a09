"""YAML and JSON files of settings as Words under keys that know their lines.

`include: other.yaml` (or a list) at the top of a file takes that file's settings first; `version`
is the version of this format that the file was written for. Both are read here and nowhere else.
"""

from pathlib import Path
from typing import Any, NamedTuple

from audiotrain.config.words import Word
from audiotrain.utils.errors import UserError
from audiotrain.utils.text import nearest

VERSION = 2  # of the files that config.save writes; a change that older readers misread raises it
RENAMED = {"hearing": "input", "features.spare": "features.margin"}
"""Dotted names of settings, or of groups of them, in files of version 1, and what they are now."""


class Key(str):
    """A key of a file."""

    place: str
    """its file and line"""


class Document(NamedTuple):
    """The settings of a file: Words in dicts and lists."""

    keys: dict[Key, Any]
    is_old: bool
    """whether settings may have names of version 1 (`current_name`)"""


def documents(
    file: Path,
    problems: list[str],
    presets: Path | None = None,
    included_at: str = "",
    above: tuple[Path, ...] = (),
) -> list[Document]:
    """A file after those that it includes; later ones go over earlier ones.

    Mistakes go to `problems`, one line each. What is included is relative to the file; a name
    without a suffix is one of `presets`. The files `above` led to this one, the last of them at
    `included_at`.
    """
    above = *above, file.resolve()
    if above[-1] in above[:-1]:
        names = " -> ".join(path.name for path in above[above.index(above[-1]) :])
        problems.append(f"{included_at}goes in a circle: {names}")
        return []
    try:
        root = _root(file, included_at)
        keys = {} if root is None else _convert(root, file, problems)
    except UserError as error:
        problems.append(str(error))
        return []
    places = {key: key.place for key in keys}
    version = getattr(keys.pop("version", Word("1")), "text", "")
    if version not in map(str, range(1, VERSION + 1)):
        expected = f"expected 1 to {VERSION}; pip install -U audiotrain reads newer ones"
        problems.append(f"{places['version']}: version: found {version!r}, {expected}")
    found = []
    included = keys.pop("include", [])
    for name in included if isinstance(included, list) else [included]:
        try:
            path = _included(name, file, presets)
        except UserError as error:
            problems.append(f"{places['include']}: include: {error}")
        else:
            found += documents(path, problems, presets, f"{places['include']}: include ", above)
    return [*found, Document(keys, version == "1")]


def current_name(name: str) -> str:
    """The dotted name that a setting of version 1 has now."""
    for old, new in RENAMED.items():
        if f"{name}.".startswith(f"{old}."):
            return new + name[len(old) :]
    return name


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the keys and values of a YAML file that a program wrote, such as a run's config.yaml.
    UserError when it cannot be read or holds anything else."""
    import yaml

    if _root(file, "") is None:
        return {}
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, ValueError) as error:  # a tag of another program, 2020-02-31
        raise UserError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None


def _root(file: Path, included_at: str) -> Any:
    """The mapping in a file, None when there is none; ValueError for a file without one."""
    import yaml

    try:
        text = file.read_text(encoding="utf-8-sig")
        # YAML contains JSON, but for tabs between the tokens.
        root = yaml.compose(text.expandtabs() if file.suffix == ".json" else text)
    except OSError as error:
        raise UserError(f"{included_at}{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text (byte {error.start})") from None
    except RecursionError:
        raise UserError(f"{file}: lists or dicts nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{file}:{mark.line + 1}" if mark else str(file)
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise UserError(f"{place}: not valid YAML: {reason}") from None
    if root is not None and not isinstance(root, yaml.MappingNode):
        raise UserError(f"{file}:1: expected lines of `key: value`")
    return root


def _convert(node: Any, file: Path, problems: list[str], group: str = "", above: tuple = ()) -> Any:
    """A YAML node as a Word, a list of these, or a dict of them."""
    import yaml

    def line_of(node: Any) -> str:
        return f"{file}:{node.start_mark.line + 1}"

    if isinstance(node, yaml.ScalarNode):
        # JSON writes a character beyond 16 bits as two halves, which YAML leaves apart.
        text = node.value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return Word(text, node.style is not None, ("null", "Null", "NULL", "~", ""))
    if any(node is outer for outer in above):
        raise UserError(f"{line_of(node)}: an anchor's alias is inside it, so it has no end")
    above = (*above, node)
    if isinstance(node, yaml.SequenceNode):
        return [_convert(part, file, problems, group, above) for part in node.value]
    keys: dict[Key, Any] = {}
    for name, part in node.value:
        if not isinstance(name, yaml.ScalarNode):
            raise UserError(f"{line_of(name)}: a list or dict as a key, expected text")
        key = Key(name.value)
        key.place = line_of(name)
        if key in keys:
            problems.append(f"{key.place}: key {f'{group}{key}'!r} is given twice")
        else:
            keys[key] = _convert(part, file, problems, f"{group}{key}.", above)
    return keys


def _included(name: Any, file: Path, presets: Path | None) -> Path:
    """The file that another one includes by a path or the name of a preset."""
    if not isinstance(name, Word) or not name.text:
        raise UserError("expected a file's name, or a list of these")
    if Path(name.text).suffix or presets is None:
        return file.parent / name.text
    return preset_file(name.text, presets)


def preset_names(presets: Path) -> list[str]:
    """Names of the presets in a folder."""
    return sorted(file.stem for file in Path(presets).glob("*.yaml"))


def preset_file(name: str, presets: Path) -> Path:
    """The file of a preset; ValueError where there is no such preset."""
    known = preset_names(presets)
    if name not in known:
        expected = f"expected one of {', '.join(known)}"
        raise UserError(f"no preset {name!r}{nearest(name, known)}, {expected}")
    return Path(presets) / f"{name}.yaml"
