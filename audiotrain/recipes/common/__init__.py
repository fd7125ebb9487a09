"""What the recipes share. A recipe is its data, its module and its scores:

    class Loudness(Recipe):
        name = "loudness"                                # runs/loudness-DATE-TIME, presets, loggers

        def discover(self, log): ...                     # -> Corpus: the labelled items
        def load(self, items): ...                       # -> the content of each, or why not
        def experiment(self, parts, run): ...            # -> Experiment(module, train, valid, …)
        def score(self, parts, run): ...                 # the best checkpoint on parts["test"]

    def train(settings):                                 # resumed by --output RUN --resume
        return run.train(Loudness(settings))

    def predict(settings):                               # RUN, a cross-validation, an ensemble …
        paths = checkpoints.report_model(settings.checkpoint, "loudness")
        spec = EnsembleSpec.of(paths, "loudness", settings.join, ("mean",))
        models = [load_model(checkpoints.best_checkpoint(run)) for run in spec.runs]

    cli.main("loudness", {"train": Command(TrainSettings, train), …}, argv)

TrainSettings inherits `settings.RunSettings`, and has a group `optimization` such as
`train.optimizers.WarmupSettings`; tests/recipes/common/test_small_recipe.py is a complete
recipe.

checkpoints.py   The models that `--checkpoint` names
cli.py           Commands of a recipe
create_model.py  Untrained models by name and sizes
crossval.py      A run folder for each fold
ensemble.py      Several runs as one model, and the file ensemble.json
exported.py      Models to pass on: float16 weights, model.json, a model card
preparation.py   Features of many recordings, on all cores and over all ranks
recipe.py        The classes of a recipe: Recipe, Experiment
settings.py      Settings that recipes share
run.py           Training: run folder, Trainer, loaders, loggers; resuming
split.py         The parts of a run's data; items that cannot be read
"""
