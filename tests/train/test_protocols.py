import re

import mlx.core as mx
import numpy as np
import pytest
from toy import Classifier, Points, loaders, trainer

from audiotrain import (
    Callback,
    CallbackProtocol,
    ChordTrainer,
    DataLoader,
    Dataset,
    DatasetProtocol,
    LoggerProtocol,
    TrainingConfig,
)
from audiotrain.train.loggers import Logger


def duck(base: type, *without: str, **own) -> type:
    """A class with the methods of `base` but not its type, some left out, some its own."""
    methods = {name: one for name, one in vars(base).items() if callable(one)} | own
    return type("Duck", (), {name: methods[name] for name in methods if name not in without})


def test_base_classes_have_the_methods_of_their_protocols():
    assert isinstance(Callback(), CallbackProtocol)
    assert isinstance(Logger(), LoggerProtocol)
    assert isinstance(Points(), DatasetProtocol)
    for base in (Callback, Logger, Dataset):
        assert not issubclass(duck(base), base)


def test_a_callback_needs_no_base_class(tmp_path):
    seen = []
    Mine = duck(
        Callback,
        on_epoch_end=lambda self, trainer, state: seen.append(state.epoch),
        state_dict=lambda self: {"seen": len(seen)},
    )
    run = trainer(tmp_path, max_epochs=2, callbacks=Mine())
    run.fit(Classifier(), *loaders())
    assert seen == [0, 1]


def test_a_callback_may_pass_its_methods_on(tmp_path):
    class Forwards:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

    trainer(tmp_path, callbacks=[Forwards(Callback())])


def test_a_logger_needs_no_base_class(tmp_path):
    rows = []
    Mine = duck(Logger, log_metrics=lambda self, metrics, step: rows.append((step, metrics)))
    mine = Mine()
    run = trainer(tmp_path, logger=mine)
    run.fit(Classifier(), *loaders())
    assert run.logger is mine
    assert rows[-1][0] == 5
    assert rows[-1][1]["val_loss"] == run.history.rows[-1]["val_loss"]


def test_a_dataset_needs_no_base_class():
    Mine = duck(Points)
    own, theirs = (next(iter(DataLoader(kind(), batch_size=8))) for kind in (Mine, Points))
    assert mx.array_equal(own["x"], theirs["x"])


def test_a_dataset_without_base_class_is_batched_and_a_list_is_taken_for_batches():
    batches = [1, 2, 3]
    config = TrainingConfig(batch_size=8)
    trained = ChordTrainer(Classifier(), duck(Points)(), batches, config)
    assert isinstance(trained.train_loader, DataLoader)
    assert trained.train_loader.batch_size == 8
    assert trained.val_loader is batches


@pytest.mark.parametrize("name", ["on_log", "teardown", "state_dict"])
def test_a_callback_that_lacks_a_method_is_refused_by_its_name(tmp_path, name):
    message = f"callbacks: Duck lacks {name}, expected a Callback's methods"
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, callbacks=[duck(Callback, name)()])


def test_a_logger_or_dataset_that_lacks_methods_is_refused_by_their_names(tmp_path):
    with pytest.raises(ValueError, match="logger: Duck lacks finish, state_dict, expected a Log"):
        trainer(tmp_path, logger=duck(Logger, "finish", "state_dict")())
    for name in ("__len__", "__getitem__"):
        with pytest.raises(ValueError, match=f"dataset: Duck lacks {name}, expected a Dataset's"):
            DataLoader(duck(Points, name)())
    with pytest.raises(ValueError, match=re.escape("dataset: found 3, expected a Dataset")):
        DataLoader(3)
    with pytest.raises(ValueError, match="dataset: found a dict, expected a Dataset; .*ArrayDat"):
        DataLoader({"x": np.zeros((4, 2))})  # its `get` is not a dataset's
    with pytest.raises(ValueError, match=r"logger: found Classifier\(.*, expected a Logger"):
        trainer(tmp_path, logger=[Classifier()])  # in one line
