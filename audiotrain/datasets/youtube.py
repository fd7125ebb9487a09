"""Clips of videos on YouTube, as AudioCaps and AudioSet list them: by the video and its seconds.

Such a table names no files. Tools that download the clips name them after the id of the video, with
its seconds or without, or after the id of the caption.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from audiotrain.utils.errors import UserError

ID_COLUMNS = ("youtube_id", "ytid")
CAPTION_ID_COLUMN = "audiocap_id"
START_COLUMNS = ("start_time", "start_seconds", "start")
END_COLUMNS = ("end_time", "end_seconds", "end")
CLIP_SECONDS = 10.0


class Columns(NamedTuple):
    """The names of a table's columns; None where it has no such column."""

    video: str
    start: str | None
    end: str | None
    caption: str | None


def columns_of(names: Iterable[str], audio: str | None) -> Columns | None:
    """The columns of a table whose times are those of videos: one of AudioCaps, or one whose column
    for the `audio` has ids of videos. None for any other table."""
    known = {name.lower().strip("# "): name for name in names}

    def find(columns: Iterable[str]) -> str | None:
        return next((known[column] for column in columns if column in known), None)

    video, caption = find(ID_COLUMNS), find((CAPTION_ID_COLUMN,))
    if video is None or (caption is None and audio != video):
        return None
    return Columns(video, find(START_COLUMNS), find(END_COLUMNS), caption)


class Clip(NamedTuple):
    """Seconds `start` to `end` of the video `id`; `start` is None where it is not known. `caption`
    is the id of the caption in AudioCaps, or empty."""

    id: str
    start: float | None
    end: float | None
    caption: str

    @classmethod
    def of(cls, texts: Mapping[str, str], columns: Columns) -> "Clip":
        """The clip in a line of a table. ValueError for a time that is no number."""

        def seconds(column: str | None) -> float | None:
            text = texts.get(column or "", "")
            try:
                number = float(text) if text else None
            except ValueError:
                number = -1.0
            if number is not None and not 0 <= number < 1e6:
                raise UserError(f"found {column} {text!r:.60}, expected seconds of the video")
            return number

        start, end = seconds(columns.start), seconds(columns.end)
        if start is not None and end is None:
            end = start + CLIP_SECONDS
        caption = texts.get(columns.caption or "", "")
        return cls(texts.get(columns.video, ""), start, end, caption)

    @property
    def stems(self) -> list[str]:
        """The names without suffix that say which seconds of the video the file has.

        >>> Clip("x", 30.0, 40.0, "7").stems[:6]
        ['x_30', 'Yx_30', 'x_30_40', 'Yx_30_40', 'x_30-40', 'Yx_30-40']
        """
        names = []
        if self.start is not None and self.end is not None:
            for form in ("{:g}", "{:.1f}", "{:.3f}"):
                start, end = form.format(self.start), form.format(self.end)
                names += [f"{self.id}_{start}{tail}" for tail in ("", f"_{end}", f"-{end}")]
            start, end = f"{1000 * self.start:.0f}", f"{1000 * self.end:.0f}"
            names += [f"{self.id}_{start}{tail}" for tail in (f"_{end}", f"-{end}", "")]
        names = [prefix + name for name in dict.fromkeys(names) for prefix in ("", "Y")]
        return names + ([self.caption] if self.caption else [])

    @property
    def stems_of_video(self) -> list[str]:
        """The names without suffix that do not say which seconds of the video the file has."""
        return [self.id, f"Y{self.id}"]
