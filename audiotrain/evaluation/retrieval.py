"""Retrieval both ways between clips and captions, by the cosines of their embeddings.

Embeddings are (items, width). Ranks are from 1; the relevant one of equally near items is the last.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse

from audiotrain.utils.arrays import l2_normalize
from audiotrain.utils.text import count

DEPTH = 10  # of mAP@10
RECALLS = (1, 5, 10)
CHUNK_BYTES = 64 * 1024**2


class Retrieved(NamedTuple):
    """Ranks and precisions of the queries of one direction."""

    ranks: np.ndarray  # (queries,) of the nearest relevant item, from 1
    precision: np.ndarray  # (queries,) average precision among the first ten
    laion_precision: np.ndarray  # the same as LAION-CLAP's evaluation computes it
    relevant: np.ndarray  # (queries,) number of relevant items
    items: int  # number of items that were searched


def retrieve(
    audio: np.ndarray,
    text: np.ndarray,
    clips: Sequence[int] | np.ndarray,
    captions: Sequence[Hashable] | None = None,
    chunk: int | None = None,
) -> dict[str, Retrieved]:
    """Search clips by captions ("text_to_audio"), and captions by clips ("audio_to_text").

    audio (clips, width), text (captions, width); `clips` (captions,) is the clip of each caption,
    from 0; a clip may have any number of captions, which are relevant to it. With `captions`,
    texts or token rows as tuples, equal ones are one: a caption is also relevant to the clips of
    its equals. `chunk` queries are compared at a time, by default as many as fit into 64 MiB.
    ValueError for embeddings that are not finite or do not fit each other, and for clips without a
    caption.

    >>> results = retrieve(np.eye(3), np.eye(3)[[0, 0, 1, 2]], clips=[0, 1, 1, 2])
    >>> results["text_to_audio"].ranks.tolist(), results["audio_to_text"].ranks.tolist()
    ([1, 3, 1, 1], [2, 1, 1])
    """
    audio, text = _unit(audio, "audio"), _unit(text, "text")
    if audio.shape[1] != text.shape[1]:
        raise ValueError(
            f"audio is {audio.shape[1]} wide and text {text.shape[1]}, expected one width"
        )
    owners = np.asarray(clips)
    if owners.shape != (len(text),) or owners.dtype.kind not in "iu":
        raise ValueError(
            f"clips {owners.shape} {owners.dtype}, expected ({len(text)},) whole numbers"
        )
    if len(owners) and not 0 <= owners.min() <= owners.max() < len(audio):
        raise ValueError(f"clips {owners.min()} to {owners.max()}, expected 0 to {len(audio) - 1}")
    bare = np.setdiff1d(np.arange(len(audio)), owners)
    if len(bare):
        raise ValueError(f"{count(len(bare), 'clip')} without a caption, first clip {bare[0]}")
    texts, of_clips = _relevance(owners, captions, len(text), len(audio))
    return {
        "text_to_audio": _search(text, audio, texts, of_clips.T.tocsr(), chunk),
        "audio_to_text": _search(audio, text, of_clips, texts.T.tocsr(), chunk),
    }


def retrieval_scores(results: dict[str, Retrieved]) -> dict[str, float]:
    """Shares of queries and ranks by direction: "text_to_audio_R@1", "…_R@5", "…_R@10",
    "…_mAP@10", "…_median_rank" (rounded down, as LAION-CLAP's) and "…_mean_rank".

    With five captions a clip and no equal ones these are the protocol of AudioCaps and Clotho: each
    caption is a query of its own, and a clip counts its best caption. "audio_to_text_mAP@10_laion"
    is the mAP@10 of LAION-CLAP's code, which numbers a clip's captions in their own order,
    not in the order of their ranks, which gives the same or a larger number.
    """
    scores = {}
    for direction, (ranks, precision, laion_precision, *_) in results.items():
        for depth in RECALLS:
            scores[f"{direction}_R@{depth}"] = float(np.mean(ranks <= depth))
        scores[f"{direction}_mAP@10"] = float(precision.mean())
        scores[f"{direction}_median_rank"] = float(np.floor(np.median(ranks)))
        scores[f"{direction}_mean_rank"] = float(ranks.mean())
        if direction == "audio_to_text":
            scores[f"{direction}_mAP@10_laion"] = float(laion_precision.mean())
    return scores


def _unit(embeddings: np.ndarray, name: str) -> np.ndarray:
    embeddings = np.asarray(embeddings, np.float64)
    if embeddings.ndim != 2 or not len(embeddings):
        raise ValueError(f"{name} {embeddings.shape}, expected (items, width) with items")
    wrong = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(wrong):
        raise ValueError(f"{name} has {len(wrong)} rows that are not finite, first row {wrong[0]}")
    return l2_normalize(embeddings)


def _relevance(clips, captions, texts: int, items: int) -> tuple:
    """Two sparse matrices of True, (texts, kinds) and (clips, kinds); a kind is a set of equal
    captions. A text is relevant to a clip of the same kind."""
    numbers: dict[Hashable, int] = {}
    if captions is None:
        captions = range(texts)
    if len(captions) != texts:
        raise ValueError(f"{len(captions)} captions, expected {texts}, one for each row of text")
    kinds = np.array([numbers.setdefault(caption, len(numbers)) for caption in captions])
    ones = np.ones(texts, bool)
    of_texts = scipy.sparse.csr_array((ones, (np.arange(texts), kinds)), (texts, len(numbers)))
    of_clips = scipy.sparse.csr_array((ones, (clips, kinds)), (items, len(numbers)))
    return of_texts, of_clips


def _search(queries, items, of_queries, of_items, chunk: int | None) -> Retrieved:
    """Search the items by each query, `chunk` at a time; items of a common kind are relevant."""
    chunk = chunk or max(1, CHUNK_BYTES // (32 * len(items)))
    parts = []
    for start in range(0, len(queries), chunk):
        rows = slice(start, start + chunk)
        # Rounded, so that equal embeddings are equally near, whatever else is in the chunk.
        scores = (queries[rows] @ items.T).astype(np.float32)
        relevant = (of_queries[rows] @ of_items).toarray().astype(bool)
        parts.append(_ranked(scores, relevant))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Retrieved(columns[0], columns[1], columns[2], columns[3], items=len(items))


def _ranked(scores: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, ...]:
    """Best rank, average precision, LAION's, and number of relevant items of each row of scores and
    relevant (rows, items)."""
    count = relevant.sum(axis=1)
    most = min(DEPTH, int(count.max()))
    # The nearest relevant items: no others can be among the first ten.
    distance = np.where(relevant, -scores, np.inf)
    first = np.argpartition(distance, most - 1, axis=1)[:, :most]
    nearest = np.argsort(np.take_along_axis(distance, first, axis=1), axis=1, kind="stable")
    order = np.take_along_axis(first, nearest, axis=1)
    ranks = np.empty(order.shape, np.int64)
    others = np.where(relevant, -np.inf, scores)
    for number in range(most):
        score = np.take_along_axis(scores, order[:, number : number + 1], axis=1)
        ranks[:, number] = (others >= score).sum(axis=1) + number + 1
    counted = (ranks <= DEPTH) & (np.arange(most) < count[:, None])
    precision = np.where(counted, np.arange(1, most + 1) / ranks, 0).sum(axis=1)
    # How many of the counted captions come no later than this one in their own order.
    earlier = (order[:, None] <= order[:, :, None]) & counted[:, None]
    as_given = np.where(counted, earlier.sum(axis=2) / ranks, 0).sum(axis=1)
    return ranks[:, 0], precision / np.minimum(count, DEPTH), as_given / count, count
