"""The training modules of CLAP: the tutorial's CLAPTrainModule, the recipe's CLAPTraining.

Validation is retrieval among all validation clips, and the loss of their embeddings.
"""

from collections.abc import Sequence
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten

from audiotrain.config.schema import validated
from audiotrain.datasets.items import Clip
from audiotrain.evaluation.retrieval import retrieval_scores, retrieve
from audiotrain.evaluation.retrieval_report import Captions
from audiotrain.models.clap.htsat import CountingBatchNorm
from audiotrain.models.clap.model import CLAP, logit_scale
from audiotrain.recipes.clap.dataset import Library, Vectors
from audiotrain.recipes.clap.finetuning import (
    LoraSettings,
    Mode,
    OptimizationSettings,
    choose_trained,
    optimizer_config,
)
from audiotrain.train.callbacks.base import Callback
from audiotrain.train.data.datasets import ArrayDataset
from audiotrain.train.data.loader import DataLoader
from audiotrain.train.engine.evaluation_loop import predict
from audiotrain.train.engine.grad_cache import in_micro_batches
from audiotrain.train.engine.memory import checkpoint_layers
from audiotrain.train.losses import Blended, ContrastiveLoss, SigLIPLoss
from audiotrain.train.module import OptimizerConfig, TrainModule
from audiotrain.train.schedulers import WarmupLinearScheduler

Batch = dict[str, mx.array]
TARGETS = ("group", "second_group", "share")  # of a batch: which rows match


@validated
class LossSettings:
    """The contrastive loss of a batch."""

    kind: Literal["infonce", "siglip"] = "infonce"
    """infonce: each clip is classified among the batch's captions and each caption among its clips;
    siglip: each pair as matching or not. Clips of equal captions match in both"""
    bias: float = -10.0
    """added to siglip's logits at first"""


class CLAPTrainModule(TrainModule):
    """CLAP and the symmetric InfoNCE of batches (mel, input_ids, attention_mask) of pairs.

    `freeze_audio` freezes the audio encoder and its projection, `freeze_text` the text encoder.
    Without `clap` it is laion/clap-htsat-unfused's architecture with fresh weights;
    `CLAP.from_pretrained` gives trained ones. The metrics are shares of a batch's clips and
    captions that are nearest to their own caption and clip.
    """

    def __init__(
        self, freeze_audio: bool = False, freeze_text: bool = True, clap: CLAP | None = None
    ):
        super().__init__()
        self.clap = CLAP() if clap is None else clap
        self.clap.train()
        if freeze_audio:
            self.clap.audio_encoder.freeze()
            self.clap.audio_projection.freeze()
        if freeze_text:
            self.clap.text_encoder.freeze()

    def __call__(
        self,
        audio: mx.array | None = None,
        input_ids: mx.array | None = None,
        attention_mask: mx.array | None = None,
    ) -> dict[str, mx.array]:
        return self.clap(audio, input_ids, attention_mask)

    def compute_loss(self, batch: Any) -> tuple[mx.array, dict[str, mx.array]]:
        mel, input_ids, attention_mask = batch
        outputs = self(audio=mel, input_ids=input_ids, attention_mask=attention_mask)
        scales = logit_scale(self.clap.logit_scale_a), logit_scale(self.clap.logit_scale_t)
        loss = ContrastiveLoss(self._all_ranks())
        return loss(outputs["audio_embeds"], outputs["text_embeds"], scales)

    def configure_optimizers(self) -> OptimizerConfig:
        total_steps = self.trainer.estimated_total_steps
        schedule = WarmupLinearScheduler(
            peak_lr=5e-5, warmup_steps=min(200, total_steps // 5), total_steps=total_steps
        )
        return OptimizerConfig(
            optimizer=optim.AdamW(learning_rate=schedule, weight_decay=0.01),
            lr_schedule_name="warmup_linear",
        )

    def _all_ranks(self):
        """A function that gathers the rows of all ranks in training: they share their negatives."""
        return self.trainer.ranks.gather_rows if self.training else None


class CLAPTraining(CLAPTrainModule):
    """CLAP in one of the recipe's modes, on batches of `CaptionedClips`.

    A batch has "mel" and "is_longer", or "audio_vector" (rows, width), the output of a frozen audio
    tower; "input_ids" and "attention_mask", or "text_vector"; and "group", equal where rows match,
    with "second_group" and "share" where clips are blended.
    `predict_step` gives the embeddings, of length 1, of a batch's clips or captions.

    A tower that does not train is in eval mode. The norm of the input takes its statistics from the
    whole batch, with micro batches, too; those of fusion keep to theirs, since few clips are long.
    `micro_batch` rows (0: all) are embedded at a time, and the towers' blocks computed twice by
    `checkpoint_blocks`, for less memory.
    """

    def __init__(
        self,
        clap: CLAP,
        mode: Mode = "full",
        last: int = 2,
        lora: LoraSettings | None = None,
        loss: LossSettings | None = None,
        optimization: OptimizationSettings | None = None,
        micro_batch: int = 0,
        checkpoint_blocks: bool = False,
        pretrained: bool = True,
    ):
        super().__init__(freeze_text=False, clap=clap)
        choose_trained(clap, mode, last, lora or LoraSettings())
        clap.logit_scale_t = clap.logit_scale_a + 0
        clap.freeze(recurse=False, keys=["logit_scale_t"])
        self._loss, self._micro_batch = loss or LossSettings(), micro_batch
        self._optimization, self._pretrained = optimization or OptimizationSettings(), pretrained
        if self._loss.kind == "siglip":
            self.logit_bias = mx.array(self._loss.bias)
        if checkpoint_blocks:
            checkpoint_layers(
                block for stage in clap.audio_encoder.layers for block in stage.blocks
            )
            checkpoint_layers(clap.text_encoder.layers)
        self.train()

    @property
    def audio_is_frozen(self) -> bool:
        """Whether the audio tower has no trainable parameter."""
        return not tree_flatten(self.clap.audio_encoder.trainable_parameters())

    @property
    def text_is_frozen(self) -> bool:
        """Whether the text tower has no trainable parameter."""
        return not tree_flatten(self.clap.text_encoder.trainable_parameters())

    def train(self, mode: bool = True) -> nn.Module:
        """Set training mode, but leave frozen towers and the norms of fusion in eval mode."""
        super().train(mode)
        if self.audio_is_frozen:
            self.clap.audio_encoder.eval()
        if self.text_is_frozen:
            self.clap.text_encoder.eval()
        for part in self.clap.audio_encoder.modules():
            if isinstance(part, CountingBatchNorm):
                part.eval()
        return self

    def embed(self, batch: Batch) -> tuple[mx.array, mx.array]:
        """Embeddings of a batch's clips and captions, (rows, projection_dim), of any length."""
        return self.embed_audio(batch), self.embed_text(batch)

    def embed_audio(self, batch: Batch) -> mx.array:
        """(rows, projection_dim) of clips."""
        clap = self.clap
        if "audio_vector" in batch:
            return clap.audio_projection(batch["audio_vector"])
        return clap.audio_projection(clap.audio_encoder(batch["mel"], batch["is_longer"]))

    def embed_text(self, batch: Batch) -> mx.array:
        """(rows, projection_dim) of captions."""
        clap = self.clap
        if "text_vector" in batch:
            return clap.text_projection(batch["text_vector"])
        vectors = clap.text_encoder(batch["input_ids"], batch["attention_mask"])
        return clap.text_projection(vectors)

    def compute_loss(self, batch: Batch) -> tuple[mx.array, dict[str, mx.array]]:
        inputs = {name: array for name, array in batch.items() if name not in TARGETS}
        rows = len(batch["group"])
        if self.training and 0 < self._micro_batch < rows:
            audio, text = self._embed_in_micro_batches(inputs, self._micro_batch)
        else:
            audio, text = self.embed(inputs)
        blended = (batch["second_group"], batch["share"]) if "share" in batch else None
        return self.loss_of(audio, text, batch["group"], blended)

    def _embed_in_micro_batches(self, inputs: Batch, micro: int) -> tuple[mx.array, mx.array]:
        tower = self.clap.audio_encoder
        norm = tower.batch_norm
        if "mel" not in inputs or not norm.training:
            return in_micro_batches(self, self.embed, inputs, micro)

        def embed_normed(part: Batch) -> tuple[mx.array, mx.array]:
            tower["batch_norm"] = nn.Identity()
            try:
                return self.embed(part)
            finally:
                tower["batch_norm"] = norm

        inputs = inputs | {"mel": norm(inputs["mel"])}  # of all rows: those of a few would differ
        return in_micro_batches(self, embed_normed, inputs, micro)

    def loss_of(
        self, audio: mx.array, text: mx.array, groups: mx.array, blended: Blended | None = None
    ) -> tuple[mx.array, dict[str, mx.array]]:
        """(loss, metrics) of embeddings (rows, projection_dim); rows of equal `groups` match."""
        scale, gather = logit_scale(self.clap.logit_scale_a), self._all_ranks()
        if self._loss.kind == "siglip":
            siglip = SigLIPLoss(gather)
            loss, metrics = siglip(audio, text, scale, self.logit_bias, groups, blended)
        else:
            loss, metrics = ContrastiveLoss(gather)(audio, text, scale, groups, blended)
        return loss, metrics | {"logit_scale": scale}

    def validation_step(self, batch: Batch) -> tuple[mx.array, dict[str, mx.array]]:
        """Of embeddings: a batch has "audio", "text" and "group"."""
        return self.loss_of(batch["audio"], batch["text"], batch["group"])

    def predict_step(self, batch: Batch) -> mx.array:
        is_text = "text_vector" in batch or "input_ids" in batch
        return self.embed_text(batch) if is_text else self.embed_audio(batch)

    def configure_optimizers(self) -> OptimizerConfig:
        steps = self.trainer.estimated_total_steps
        return optimizer_config(self, self.clap, self._optimization, steps, self._pretrained)


MONITOR = "val_map_at_10"  # mean of both directions


class UnshardedLoader(DataLoader):
    """Every rank gets all batches."""

    def shard(self, rank: int, world_size: int) -> None:
        """Keep all batches."""


class Retrieval(Callback):
    """Embeds all validation clips and captions before each validation, with the weights that it
    validates; records recall and mAP@10 (MONITOR), and fills the batches of `loader`."""

    def __init__(
        self,
        clips: Sequence[Clip],
        library: Library,
        vectors: Vectors,
        batch_size: int,
        embedded_at_once: int,
    ):
        self.captions = Captions.of(clips)
        # Among one clip, or captions of one meaning, every retrieval is right.
        self.is_informative = len(clips) > 1 and len(set(self.captions.meanings)) > 1
        texts = library.texts(self.captions.texts, vectors)
        self.loaders = [
            library.loader(samples, embedded_at_once)
            for samples in (library.sounds(clips, vectors), texts)
        ]
        meanings = np.array(self.captions.meanings)[self.captions.first]
        self.groups = np.unique(meanings, return_inverse=True)[1]
        unknown = np.zeros((len(clips), 1), np.float32)  # until a validation starts
        self.pairs = ArrayDataset({"audio": unknown, "text": unknown, "group": self.groups})
        self.loader = UnshardedLoader(self.pairs, batch_size, num_workers=0)

    def on_validation_start(self, trainer, module) -> None:
        audio, text = (
            np.concatenate([np.array(rows, np.float32) for rows in predict(trainer, loader)])
            for loader in self.loaders
        )
        first = text[self.captions.first]
        self.pairs.arrays = {"audio": audio, "text": first, "group": self.groups}
        if trainer.sanity_checking:
            return
        results = retrieve(audio, text, self.captions.clips, self.captions.meanings)
        scores = retrieval_scores(results)
        for direction in results:
            trainer.record(f"val_{direction}_recall_at_1", scores[f"{direction}_R@1"])
        average_precisions = [scores[f"{direction}_mAP@10"] for direction in results]
        trainer.record(MONITOR, sum(average_precisions) / len(average_precisions))
