"""The code blocks of the seed documents, and the little that is changed in them before they run.

The documents lie in shared/seeds beside the checkout; the project does not ship them. A block's key
is its document and its number in it, from 1, blocks in other languages included: "000-02".
"""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SEEDS = ROOT.parent / "shared" / "seeds"

# Module that a document imports from -> ours.
MODULES = {
    "mlx_audio": "audiotrain",
    "mlx_audio.data.data.dataset": "audiotrain",
    "mlx_audio.models.clap": "audiotrain.models.clap",
    "mlx_audio.train.callbacks": "audiotrain.train.callbacks",
    "mlx_audio.train.loggers": "audiotrain.train.loggers",
    "mlx_audio.train.schedulers": "audiotrain.train.schedulers",
    "models": "audiotrain",
    "src.model.chord_model": "audiotrain",
    "src.model.loss": "audiotrain",
    "src.training": "audiotrain",
    "src.training.metrics": "audiotrain",
    "torch.utils.data": "audiotrain",
    "training": "audiotrain",
    "training.callbacks": "audiotrain.train.callbacks",
    "training.config": "audiotrain.train.declarative",
    "training.integrations": "audiotrain",
    "training.mlx_trainer": "audiotrain",
}
# Names that are another thing in audiotrain itself: 002 trains by a Trainer of its own, and the
# TrainingConfig of 003's old way is that of any model.
NAMES = {
    ("src.training", "Trainer"): "ChordTrainer as Trainer",
    ("training.config", "TrainingConfig"): "BaseTrainerConfig as TrainingConfig",
}

# What stands for `...` and for PyTorch's tensors, and sizes with which a block takes seconds.
CHANGES: dict[str, list[tuple[str, str]]] = {
    "000-06": [
        ("callbacks=[...]", "callbacks=[EarlyStopping(patience=100)]"),
        ("WandbLogger(...)", 'WandbLogger("seeds")'),
        ("max_steps=10000", "max_steps=30"),
    ],
    "000-17": [
        ("WandbLogger(...)", 'WandbLogger("seeds")'),
        ("TensorBoardLogger(...)", "TensorBoardLogger()"),
    ],
    "001-03": [("size=5000", "size=128"), ("size=1000", "size=64")],
    "001-04": [("max_epochs=10", "max_epochs=3")],
    "001-07": [("CLAP()", "CLAP(small_clap)")],
    "001-08": [("size=500", "size=16"), ("size=100", "size=8")],
    "001-09": [("max_epochs=10", "max_epochs=2")],
    "001-14": [("loss = ...", "loss = mx.mean(self.linear(batch[0]) ** 2)")],
    "002-01": [
        ("ChordRecognitionModel()", "ChordRecognitionModel(d_model=32, num_blocks=1)"),
        ("num_epochs=100", "num_epochs=3"),
    ],
    "002-06": [
        ("torch.randn(16, 44100)", "mx.random.normal((16, 44100))"),
        ("torch.randint(", "mx.random.randint("),
    ],
    "003-01": [
        ('head_type="binary_classification"', 'head_type="binary_classification", **small_bert')
    ],
    "003-07": [
        ("TrainingConfig(...)", "TrainingConfig()"),
        ("config, ...)", "config)"),
        ("trainer.train(...)", "trainer.train(train_loader, val_loader)"),
    ],
    "004-01": [("range(1000)", "range(500)")],
}
# Blocks that are the body of a function.
FUNCTIONS = {"000-05": "def logs(self, loss, acc):"}


@dataclass(frozen=True)
class Wrong:
    """A block that cannot run as it stands: why, the error that it gives, and its right form."""

    reason: str
    error: type[Exception] | tuple[type[Exception], ...]
    right: list[tuple[str, str]]
    use: str = ""
    """what makes a function of the block run"""


NO_PYTHON = "a `...` after arguments by name is no Python"
DICT_VALUES = "parameters() is a tree: the values of its first level are dicts, without a size"
UPDATE = (
    "optimizer.update changes a module in place and gives nothing; apply_gradients gives a tree"
)
APPLY = "nn.Module.apply maps a function over the parameters; it takes no parameters and inputs"
WRONG = {
    "000-14": Wrong(NO_PYTHON, SyntaxError, [("logger, ...)", "logger, max_epochs=1)")]),
    "000-17": Wrong(NO_PYTHON, SyntaxError, [("    ...\n", "    max_epochs=1\n")]),
    "000-24": Wrong(
        "mlx.nn has a layer MaxPool2d, and no function max_pool2d",
        AttributeError,
        [("nn.max_pool2d(x, 2)", "nn.MaxPool2d(2)(x)")],
    ),
    "001-05": Wrong(
        DICT_VALUES,
        AttributeError,
        [("p in model.parameters().values()", "_, p in tree_flatten(model.parameters())")],
    ),
    "001-09": Wrong(
        DICT_VALUES,
        AttributeError,
        [
            ("p in model.parameters().values()", "_, p in tree_flatten(model.parameters())"),
            (
                "p in model.trainable_parameters().values()",
                "_, p in tree_flatten(model.trainable_parameters())",
            ),
        ],
    ),
    "001-11": Wrong(NO_PYTHON, SyntaxError, [("val=1.0, ...)", "val=1.0, max_epochs=1)")]),
    "004-01": Wrong(
        f"{APPLY}; {UPDATE}",
        ValueError,
        [
            ("net.apply(p, x)", "apply(p, x)"),
            ("opt.update(params, grads)", "opt.apply_gradients(grads, params)"),
        ],
    ),
    "004-03": Wrong(
        f"mlx.core has no utils, mlx.utils has them; {UPDATE}",
        AttributeError,
        [
            ("mx.utils.tree_map", "tree_map"),
            ("opt.update(params, acc)", "opt.apply_gradients(acc, params)"),
        ],
    ),
    "004-04": Wrong(
        "optimizer.state is a dict and no method; mx.save writes one array and no tree",
        TypeError,
        [
            ("opt.state()", "opt.state"),
            ('mx.save("ckpt.npz", state)', 'mx.savez("ckpt.npz", **dict(tree_flatten(state)))'),
            ('mx.load("ckpt.npz")', 'tree_unflatten(list(mx.load("ckpt.npz").items()))'),
            ('# opt.load_state(restored["opt"])', 'opt.state = restored["opt"]'),
        ],
    ),
    "004-06": Wrong(
        f"{APPLY}; {UPDATE}",
        ValueError,
        [
            ("net.apply(p, x_aug)", "apply(p, x_aug)"),
            ("opt.update(params, grads)", "opt.apply_gradients(grads, params)"),
        ],
    ),
    "004-07": Wrong(
        APPLY,
        ValueError,
        [("net.apply(p, x)", "apply(p, x)")],
        use="bad_loss(params, mx.ones((2, 32)))",
    ),
    "004-08": Wrong(
        "mx.default_device tells the device, mx.stream sets it in a `with`; no GPU may be there",
        (TypeError, ValueError),
        [
            ("(mx.gpu)", "(mx.gpu if mx.is_available(mx.gpu) else mx.cpu)"),
            ("mx.default_device(mx.cpu)", "mx.stream(mx.cpu)"),
        ],
    ),
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: Path
    number: int
    line: int
    """of its first line in the document, from 1"""
    language: str
    text: str

    @property
    def key(self) -> str:
        return f"{self.document.name[:3]}-{self.number:02d}"

    @property
    def id(self) -> str:
        return f"{self.key} {self.text.splitlines()[0]}"

    def changed(self) -> str:
        """With our imports and CHANGES, in its function."""
        text = replaced(with_our_imports(self.text), CHANGES.get(self.key, []))
        if self.key in FUNCTIONS:
            return f"{FUNCTIONS[self.key]}\n{textwrap.indent(text, '    ')}"
        return text

    def right(self) -> str:
        """As changed; the right form of a wrong one."""
        wrong = WRONG.get(self.key)
        return replaced(self.changed(), wrong.right) if wrong else self.changed()

    def run(self, code: str, names: dict) -> None:
        """Execute code of this block with, and into, these names; errors have its line."""
        exec(compile("\n" * (self.line - 1) + code, str(self.document), "exec"), names)


def blocks() -> dict[str, Block]:
    """Key -> block, of all documents in their order; empty where there are none."""
    fence = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    found = {}
    for document in sorted(SEEDS.glob("00?_*.txt")):
        text = document.read_text(encoding="utf-8")
        for number, match in enumerate(fence.finditer(text), 1):
            line = text.count("\n", 0, match.start()) + 2
            block = Block(document, number, line, match[1], match[2])
            found[block.key] = block
    return found


def replaced(text: str, pairs: list[tuple[str, str]]) -> str:
    for old, new in pairs:
        assert old in text, f"{old!r} is not in\n{text}"
        text = text.replace(old, new)
    return text


def with_our_imports(text: str) -> str:
    """With `from x import a, b` of the modules that documents name as ours; others stay."""

    def ours(match: re.Match) -> str:
        indent, module, names = match.groups()
        if module not in MODULES:
            return match[0]
        for (of, name), other in NAMES.items():
            if of == module:
                names = re.sub(rf"\b{name}\b", other, names)
        return f"{indent}from {MODULES[module]} import {names}"

    return re.sub(r"^( *)from ([\w.]+) import (.+)$", ours, text, flags=re.MULTILINE)
