"""Captioned audio for training: `discover` a folder, `check` and `report` it, `split` it.

`composed` gives clips that need no files: synthesised scenes whose captions are exact.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from audiotrain.datasets import summary
from audiotrain.datasets.items import Clip, Corpus, Problem, normalised
from audiotrain.datasets.splits import join_groups, join_spans
from audiotrain.datasets.summary import NO_LOG, ProblemLog
from audiotrain.datasets.synthesis.sound_scenes import Scene, random_scene
from audiotrain.features import audio
from audiotrain.utils.errors import UserError
from audiotrain.utils.text import count, duration, of_total

CLASSES = 8  # that a report names
_SEEDS = 1_000_000  # scenes of one seed at most


@dataclass(frozen=True)
class Survey:
    """Counts of a corpus; lengths in seconds.

    `distinct` counts the captions that differ, `shared` the clips with a caption of another clip;
    `words` has (shortest, median, longest) caption, `classes` the clips of each class.
    """

    clips: int
    groups: int
    splits: dict[str, int]
    lengths: np.ndarray
    captions: int
    most_captions: int
    distinct: int
    shared: int
    words: tuple[int, int, int]
    vocabulary: int
    classes: dict[str, int]
    problems: list[Problem]


def composed(number: int, seed: int = 0) -> Corpus[Clip]:
    """Clips of synthesised scenes, the same for the same seed. ValueError for none.

    >>> clip = composed(3).items[0]
    >>> clip.id, len(clip.captions) > 1
    ('scene-0-000000', True)
    """
    if not 1 <= number <= _SEEDS:
        raise UserError(f"{number} composed clips, expected 1 to {_SEEDS}")
    clips = []
    for index in range(number):
        scene = random_scene(seed * _SEEDS + index)
        name = f"scene-{seed}-{index:06d}"
        clips.append(Clip(name, scene, scene.captions, group=name, concept=scene.meaning))
    return Corpus(Path("composed"), clips, [])


def check(corpus: Corpus[Clip], strict: bool = False) -> Corpus[Clip]:
    """The corpus without clips whose audio can't be opened; they are among its problems instead.

    Clips of one audio file, or of equal ones, get one group, so that all are in one part of a
    split. ValueError, naming the first clip, when none is left, or when `strict` and there is any.
    """
    clips, _, problems = readable(corpus, "checking audio")
    broken = len(corpus.items) - len(clips)
    if broken and (strict or not clips):
        raise UserError(
            f"{corpus.folder}: {of_total(broken, len(corpus.items), 'clips')} can't be read, first "
            f"{problems[0].text}"
        )
    clips, shared = join_spans(clips)
    clips, twins = _join_twins(clips)
    return replace(corpus, items=clips, problems=corpus.problems + problems + shared + twins)


def readable(
    corpus: Corpus[Clip], text: str = "reading data"
) -> tuple[list[Clip], np.ndarray, list[Problem]]:
    """The clips whose audio can be opened, their lengths in seconds, and a problem for each other.
    `text` describes the progress bar."""
    clips, lengths, problems = [], [], []
    for clip in summary.progress(corpus.items, text):
        try:
            lengths.append(clip.seconds)
            clips.append(clip)
        except audio.AudioError as error:
            problems.append(
                Problem(summary.UNREADABLE, str(error).removeprefix(f"{corpus.folder}/"))
            )
    return clips, np.array(lengths), problems


def _join_twins(clips: list[Clip]) -> tuple[list[Clip], list[Problem]]:
    """Clips with equal audio files in one group, and a problem for each file but the first."""
    clip_of: dict[audio.AudioPath, Clip] = {}  # the first of each file
    for clip in clips:
        if not isinstance(clip.audio, Scene):
            clip_of.setdefault(clip.audio, clip)
    sizes = Counter(map(_size, clip_of))
    suspects = [path for path in clip_of if sizes[_size(path)] > 1]
    digests: dict[object, bytes] = {}
    twins: dict[bytes, Clip] = {}
    problems = []
    for path in summary.progress(suspects, "looking for duplicates"):
        data = path.read() if isinstance(path, audio.TarMember) else Path(path).read_bytes()
        digests[path] = hashlib.blake2b(data).digest()
        clip, twin = clip_of[path], twins.setdefault(digests[path], clip_of[path])
        if twin is not clip:
            text = f"{clip.id}: equal to {twin.id}"
            problems.append(Problem("files equal to another, put into its group", text))
    return join_groups(clips, [digests.get(clip.audio) for clip in clips]), problems


def _size(path: audio.AudioPath) -> int:
    return path.size if isinstance(path, audio.TarMember) else Path(path).stat().st_size


def survey(corpus: Corpus[Clip]) -> Survey:
    """Count what is in the clips of a corpus, and what is wrong with them besides its problems."""
    clips, lengths, problems = readable(corpus)
    all_captions = [caption for clip in clips for caption in clip.captions]
    owners = Counter(normalised(caption) for clip in clips for caption in set(clip.captions))
    words = sorted(len(caption.split()) for caption in all_captions) or [0]
    vocabulary = {word.strip(".,;:!?\"'()") for caption in owners for word in caption.split()}
    return Survey(
        clips=len(clips),
        groups=len({clip.group for clip in clips}),
        splits=summary.splits_of(clips),
        lengths=lengths,
        captions=len(all_captions),
        most_captions=max((len(clip.captions) for clip in clips), default=0),
        distinct=len(owners),
        shared=sum(any(owners[normalised(c)] > 1 for c in clip.captions) for clip in clips),
        words=(words[0], words[len(words) // 2], words[-1]),
        vocabulary=len(vocabulary),
        classes=dict(Counter(clip.label for clip in clips if clip.label).most_common()),
        problems=corpus.problems + problems + summary.leaks(clips),
    )


def report(corpus: Corpus[Clip], log: ProblemLog = NO_LOG) -> str:
    """What is in a corpus and what is wrong with it, for a terminal; `log` gets all problems."""
    found = survey(corpus)
    return log.summary(corpus, (f"  {line}" for line in _overview(found)), found.problems)


def _overview(found: Survey) -> list[str]:
    if not found.clips:
        return ["no clips"]
    lines = [
        clips_line(found.lengths, found.groups),
        f"{count(found.captions, 'caption')}, {found.captions / found.clips:.3g} a clip, at most "
        f"{found.most_captions}; {found.distinct} of them distinct, "
        f"{found.shared} clips share theirs",
        f"words in a caption: {found.words[0]} to {found.words[2]}, median {found.words[1]}; "
        f"{found.vocabulary} different words",
    ]
    if found.classes:
        named = [f"{name} {number}" for name, number in list(found.classes.items())[:CLASSES]]
        more = len(found.classes) - len(named)
        kinds = count(len(found.classes), "class", "classes")
        lines.append(f"{kinds}: {', '.join(named)}" + (f" and {more} more" if more else ""))
    return lines + summary.split_lines(found.splits)


def clips_line(lengths: np.ndarray, groups: int) -> str:
    """The number of clips, their groups and their lengths in seconds, for a report."""
    clips = count(len(lengths), "clip")
    clips += f", in {count(groups, 'group')}" if groups < len(lengths) else ""
    shortest, longest = duration(lengths.min()), duration(lengths.max())
    return f"{clips}: {duration(lengths.sum())}, {shortest} to {longest} long"
