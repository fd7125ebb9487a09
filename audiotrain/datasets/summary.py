"""What reports of data share: bar charts, and the log of problems."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from audiotrain.datasets.items import Corpus, LabelledItem, Problem
from audiotrain.datasets.splits import SPLITS
from audiotrain.utils import files
from audiotrain.utils.errors import UserError
from audiotrain.utils.progress import output
from audiotrain.utils.text import _unit, of_total

UNREADABLE = "audio that can't be read, left out"
INCOMPLETE = "audio of which a part can't be decoded"
T = TypeVar("T")
EXAMPLES = 3  # problems of one kind that a report prints
UNREADABLE_EXAMPLES = 5
BAR_WIDTH = 32  # characters


def progress(items: Sequence[T], text: str, unit: str = "file") -> Iterable[T]:
    """The items, with a bar when they take more than two seconds."""
    return tqdm(items, desc=text, unit=unit, delay=2, leave=False, file=output())


def splits_of(items: Iterable[LabelledItem]) -> dict[str, int]:
    """How many items the data put into each part."""
    return dict(Counter(item.split for item in items if item.split))


def split_lines(splits: Mapping[str, int]) -> list[str]:
    """A line for a report with the items of each part, none where the data name no parts."""
    counts = ", ".join(f"{name} {splits.get(name, 0)}" for name in SPLITS)
    return [f"split by the data: {counts}"] if splits else []


def leaks(items: Iterable[LabelledItem]) -> list[Problem]:
    """A problem for each group that the data put into several splits."""
    splits: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if item.split:
            splits[item.group].add(item.split)
    kind = "groups that the data put into several splits"
    texts = {group: f"{group}: {', '.join(sorted(names))}" for group, names in splits.items()}
    return [Problem(kind, texts[group]) for group, names in splits.items() if len(names) > 1]


def histogram(title: str, rows: list[tuple[str, float]]) -> list[str]:
    """Lines of a bar chart of (name, seconds)."""
    total = sum(seconds for _, seconds in rows) or 1.0
    largest = max(seconds for _, seconds in rows) or 1.0
    width = max(len(title), *(len(name) for name, _ in rows))
    size, unit = _unit(total)
    lines = [f"  {title:<{width}}  {unit:>7}    share"]
    for name, seconds in rows:
        bar = "█" * round(BAR_WIDTH * seconds / largest)
        amount = f"{seconds / size:7.2f}  {100 * seconds / total:5.1f} %"
        lines.append(f"  {name:<{width}}  {amount}  {bar}".rstrip())
    return lines


class ProblemLog:
    """The file problems.txt in a folder of results: all problems of the data, one a line.

    Without a folder nothing is written. `brief` reports have one line and one for each kind of
    problem. UserError where the file cannot be written.
    """

    def __init__(self, folder: Path | None = None, brief: bool = False):
        self.path = None if folder is None else folder / "problems.txt"
        self.brief = brief

    def report(self, problems: Iterable[Problem]) -> list[str]:
        """Replace the file, or remove it where there are no problems. Gives lines for a report:
        problems by kind, the most frequent kind first, with a few examples of each."""
        lines = ["  problems" if problems else "  no problems found"]
        for kind, texts in self._replace(problems).items():
            lines.append(f"  {len(texts):>7} {kind}")
            lines += [f"          {line}" for line in self._examples(texts, EXAMPLES)]
        return lines

    def _replace(self, problems: Iterable[Problem]) -> dict[str, list[str]]:
        """Replace the file; the problems by kind, the most frequent kind first."""
        by_kind: dict[str, list[str]] = defaultdict(list)
        for problem in problems:
            by_kind[problem.kind].append(problem.text)
        if self.path is not None:
            try:
                self.path.unlink(missing_ok=True)
            except OSError as error:
                raise UserError(f"{self.path}: cannot be replaced ({error.strerror})") from None
            self._append(problems)
        return dict(sorted(by_kind.items(), key=lambda pair: -len(pair[1])))

    def summary(self, corpus: Corpus, lines: Iterable[str], problems: Sequence[Problem]) -> str:
        """Return lines about the data of a corpus, then the report on its problems, as one text."""
        lines = [*lines, *(f"  {note}" for note in corpus.notes)]
        if not self.brief:
            return "\n".join([f"data in {corpus.folder}", *lines, "", *self.report(problems)])
        first = ", ".join(line.strip() for line in (*lines[:1], *corpus.notes))
        report = [f"data in {corpus.folder}: {first}"]
        for kind, texts in self._replace(problems).items():
            place = "" if self.path is None or len(texts) == 1 else f" … all in {self.path}"
            report.append(f"  {len(texts)} {kind}: {_printable(texts[0])}{place}")
        return "\n".join(report)

    def add_unreadable(self, problems: Iterable[str]) -> None:
        """Append recordings that cannot be read to the file."""
        self._append([Problem(UNREADABLE, problem) for problem in problems])

    def report_unreadable(self, problems: Sequence[str], total: int, unit: str) -> None:
        """Append recordings that cannot be read, of `total`, to the file and print a few."""
        self.add_unreadable(problems)
        if problems:
            left_out = of_total(len(problems), total, unit)
            lines = [f"left out {left_out} that can't be read, such as"]
            print("\n  ".join(lines + self._examples(problems, UNREADABLE_EXAMPLES)), flush=True)

    def report_incomplete(self, lines: Sequence[str], total: int, unit: str) -> None:
        """Append recordings of which a part cannot be decoded, of `total`, to the file and print a
        line for each, or a few."""
        self._append([Problem(INCOMPLETE, line) for line in lines])
        if lines:
            print(f"{len(lines)} of {total} {unit} can't be decoded whole:")
            print("  " + "\n  ".join(self._examples(lines, UNREADABLE_EXAMPLES)), flush=True)

    def _append(self, problems: Iterable[Problem]) -> None:
        lines = [f"{kind}: {_printable(text)}\n" for kind, text in problems]
        if self.path is not None and lines:
            before = self.path.read_text("utf-8") if self.path.is_file() else ""
            files.write(self.path, "".join([before, *lines]))

    def _examples(self, texts: Sequence[str], most: int) -> list[str]:
        lines = [_printable(text) for text in texts[:most]]
        if len(texts) > most:
            place = "" if self.path is None else f", all in {self.path}"
            lines.append(f"and {len(texts) - most} more{place}")
        return lines


NO_LOG = ProblemLog()


def _printable(text: str) -> str:
    """One line in any terminal, also for file names that are not text."""
    return " ".join(text.encode("utf-8", "replace").decode().split())
