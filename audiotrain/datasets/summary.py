"""Lines that reports of data share: counts, durations, bar charts, problems by kind."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from audiotrain.datasets.items import AnyItem, Problem
from audiotrain.utils import files
from audiotrain.utils.text import _unit, and_more

PROBLEMS = "problems.txt"  # in a folder of results: every problem of the data
UNREADABLE = "audio that can't be read, left out"
EXAMPLES = 3  # problems of one kind that a report prints
NAMED = 5  # recordings left out that are printed
BAR_WIDTH = 32  # characters


def progress(items: list[AnyItem], text: str) -> Iterable[AnyItem]:
    """The items, with a bar when they take more than two seconds."""
    return tqdm(items, desc=text, unit="file", delay=2, leave=False)


def leaks(items: list[AnyItem]) -> list[Problem]:
    """A problem for each group that the data put into several splits."""
    splits: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if item.split:
            splits[item.group].add(item.split)
    return [
        Problem(
            "groups that the data put into several splits", f"{group}: {', '.join(sorted(found))}"
        )
        for group, found in splits.items()
        if len(found) > 1
    ]


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


def problem_lines(problems: list[Problem], listed: Path | None = None) -> list[str]:
    """Problems by kind, the most frequent kind first, with a few examples of each; `listed` is the
    file that has all."""
    if not problems:
        return ["  no problems found"]
    by_kind: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        by_kind[problem.kind].append(problem.text)
    lines = ["  problems"]
    for kind, texts in sorted(by_kind.items(), key=lambda pair: -len(pair[1])):
        lines.append(f"  {len(texts):>7} {kind}")
        lines += [f"          {_printable(text)}" for text in texts[:EXAMPLES]]
        if len(texts) > EXAMPLES:
            lines.append(f"          {and_more(len(texts) - EXAMPLES, listed)}")
    return lines


def list_problems(problems: Iterable[Problem], listed: Path | None) -> None:
    """Make `listed` a file of problems, one a line; there is none where there are no problems.
    ValueError when it cannot be written. Nothing without a file."""
    if listed is None:
        return
    try:
        listed.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(f"{listed}: cannot be replaced ({error.strerror})") from None
    _add(problems, listed)


def list_unreadable(problems: Iterable[str], listed: Path | None) -> None:
    """Put recordings that can't be read at the end of `listed`, as `list_problems` does."""
    if listed is not None:
        _add([Problem(UNREADABLE, problem) for problem in problems], listed)


def _add(problems: Iterable[Problem], listed: Path) -> None:
    lines = [f"{kind}: {_printable(text)}\n" for kind, text in problems]
    if lines:
        before = listed.read_text("utf-8") if listed.is_file() else ""
        files.write(listed, "".join([before, *lines]))


def tell_left_out(
    problems: Sequence[str], total: int, what: str, listed: Path | None = None
) -> None:
    """Print which of `total` recordings can't be read, a few examples of them; all go into
    `listed`."""
    list_unreadable(problems, listed)
    if not problems:
        return
    lines = [f"left out {len(problems)} of {total} {what} that can't be read, such as"]
    lines += [f"  {_printable(problem)}" for problem in problems[:NAMED]]
    if len(problems) > NAMED:
        lines.append(f"  {and_more(len(problems) - NAMED, listed)}")
    print("\n".join(lines), flush=True)


def _printable(text: str) -> str:
    """One line in any terminal, also for file names that are not text."""
    return " ".join(text.encode("utf-8", "replace").decode().split())
