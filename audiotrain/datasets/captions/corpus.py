"""Captioned audio for training: `discover` a folder, `check` and `report` it, `split` it.

`composed` gives clips that need no files: synthesised scenes whose captions are exact.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from audiotrain.datasets.items import Clip, Corpus, Problem, normalised
from audiotrain.datasets.splits import SPLITS, join_groups, join_spans
from audiotrain.datasets.summary import NO_LOG, UNREADABLE, ProblemLog, leaks, progress
from audiotrain.datasets.synthesis.sound_scenes import Scene, random_scene
from audiotrain.features import audio
from audiotrain.utils.text import count, duration

CLASSES = 8  # that a report names
_SEEDS = 1_000_000  # scenes of one seed at most


@dataclass(frozen=True)
class Survey:
    """What a corpus holds. Lengths in seconds.

    `captions` counts them all, `distinct` those that differ, `shared` the clips whose captions are
    those of other clips, too; `words` has (shortest, median, longest) caption; `classes` the clips
    of each class.
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
        raise ValueError(f"{number} composed clips, expected 1 to {_SEEDS}")
    clips = []
    for place in range(number):
        scene = random_scene(seed * _SEEDS + place)
        name = f"scene-{seed}-{place:06d}"
        clips.append(Clip(name, scene, scene.captions, group=name, concept=scene.meaning))
    return Corpus(Path("composed"), clips, [])


def check(corpus: Corpus[Clip], strict: bool = False, decode: bool = False) -> Corpus[Clip]:
    """The corpus without clips whose audio can't be opened; they are among its problems instead.

    With `decode` all audio is read through, which finds damage after the header. Clips of one
    audio file, or of equal ones, get one group, so that no split tears them apart. ValueError,
    naming the first clip, when none is left, or when `strict` and there is any.
    """
    clips, problems = [], list(corpus.problems)
    faults: dict[audio.AudioPath, str] = {}  # by file: spans of one are opened once
    for clip in progress(corpus.items, "decoding audio" if decode else "checking audio"):
        fault = _fault(clip, decode, faults)
        if fault:
            problems.append(Problem(UNREADABLE, fault.replace(f"{corpus.folder}/", "")))
        else:
            clips.append(clip)
    broken = len(corpus.items) - len(clips)
    if broken and (strict or not clips):
        raise ValueError(
            f"{corpus.folder}: {broken} of {len(corpus.items)} clips can't be read, first "
            f"{problems[len(corpus.problems)].text}"
        )
    clips, shared = join_spans(clips)
    clips, twins = _grouped_twins(clips)
    return replace(corpus, items=clips, problems=problems + shared + twins)


def _fault(clip: Clip, decode: bool, known: dict[audio.AudioPath, str]) -> str:
    if isinstance(clip.audio, Scene):
        return ""
    if clip.audio not in known:
        try:
            rate = audio.info(clip.audio).rate
            if decode:
                for _ in audio.stream(clip.audio, rate):
                    pass
            known[clip.audio] = ""
        except audio.AudioError as error:
            known[clip.audio] = str(error)
    if known[clip.audio] or (not clip.start and clip.end is None):
        return known[clip.audio]
    try:
        clip.seconds  # noqa: B018  (raises for a span that holds nothing)
    except audio.AudioError as error:
        return str(error)
    return ""


def _grouped_twins(clips: list[Clip]) -> tuple[list[Clip], list[Problem]]:
    """Clips with equal audio files in one group, and a problem for each file but the first."""
    by_size: dict[int, set[audio.AudioPath]] = defaultdict(set)
    for clip in clips:
        if not isinstance(clip.audio, Scene):
            by_size[_size(clip.audio)].add(clip.audio)
    suspects = [path for paths in by_size.values() if len(paths) > 1 for path in paths]
    digests = {path: _digest(path) for path in progress(suspects, "looking for duplicates")}
    first: dict[bytes, Clip] = {}
    problems = []
    told: set[audio.AudioPath] = set()
    for clip in clips:
        if clip.audio not in digests:
            continue
        twin = first.setdefault(digests[clip.audio], clip)
        if twin.audio != clip.audio and clip.audio not in told:
            told.add(clip.audio)
            problems.append(Problem("files equal to another, put into its group",
                                    f"{clip.id}: equal to {twin.id}"))  # fmt: skip
    return join_groups(clips, [digests.get(clip.audio) for clip in clips]), problems


def _size(path: audio.AudioPath) -> int:
    return path.size if isinstance(path, audio.TarMember) else Path(path).stat().st_size


def _digest(path: audio.AudioPath) -> bytes:
    data = path.read() if isinstance(path, audio.TarMember) else Path(path).read_bytes()
    return hashlib.blake2b(data).digest()


def survey(corpus: Corpus[Clip]) -> Survey:
    """Count what is in the clips of a corpus, and what is wrong with them besides its problems."""
    clips, problems = [], list(corpus.problems)
    lengths = []
    for clip in progress(corpus.items, "reading data"):
        try:
            lengths.append(clip.seconds)
            clips.append(clip)
        except audio.AudioError as error:
            problems.append(Problem(UNREADABLE, str(error).replace(f"{corpus.folder}/", "")))
    all_captions = [caption for clip in clips for caption in clip.captions]
    owners = Counter(normalised(caption) for clip in clips for caption in set(clip.captions))
    words = sorted(len(caption.split()) for caption in all_captions) or [0]
    return Survey(
        clips=len(clips),
        groups=len({clip.group for clip in clips}),
        splits=dict(Counter(clip.split for clip in clips if clip.split)),
        lengths=np.array(lengths),
        captions=len(all_captions),
        most_captions=max((len(clip.captions) for clip in clips), default=0),
        distinct=len(owners),
        shared=sum(any(owners[normalised(c)] > 1 for c in clip.captions) for clip in clips),
        words=(words[0], words[len(words) // 2], words[-1]),
        vocabulary=len(_vocabulary(all_captions)),
        classes=dict(Counter(clip.label for clip in clips if clip.label).most_common()),
        problems=problems + leaks(clips),
    )


def _vocabulary(captions: Iterable[str]) -> set[str]:
    return {
        word.strip(".,;:!?\"'()") for caption in captions for word in normalised(caption).split()
    }


def report(corpus: Corpus[Clip], log: ProblemLog = NO_LOG) -> str:
    """What is in a corpus and what is wrong with it, for a terminal; `log` gets all problems."""
    found = survey(corpus)
    lines = [f"data in {corpus.folder}", *(f"  {line}" for line in _overview(found))]
    return "\n".join([*lines, "", *log.report(found.problems)])


def _overview(found: Survey) -> list[str]:
    if not found.clips:
        return ["no clips"]
    what = count(found.clips, "clip")
    if found.groups < found.clips:
        what += f", in {count(found.groups, 'group')}"
    shortest, longest = found.lengths.min(), found.lengths.max()
    lines = [
        f"{what}: {duration(found.lengths.sum())}, "
        f"{duration(shortest)} to {duration(longest)} long",
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
    if found.splits:
        splits = ", ".join(f"{name} {found.splits.get(name, 0)}" for name in SPLITS)
        lines.append(f"split by the data: {splits}")
    return lines
