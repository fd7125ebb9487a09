"""The fit loop: epochs, batches, when to validate, log, save and stop."""

import itertools
import math
import sys
import time
from collections.abc import Iterator

import mlx.core as mx

from audiotrain.train.distributed.watchdog import lost, lost_connection
from audiotrain.train.engine.compiled_function import StepOutputs
from audiotrain.train.engine.evaluation_loop import NO_BATCH, Averages, evaluate, evaluating, owns
from audiotrain.train.engine.memory import memory_limits
from audiotrain.train.engine.signals import Interrupted, SignalGuard
from audiotrain.train.engine.step_metrics import MetricBuffer
from audiotrain.train.engine.steps import in_stage
from audiotrain.train.history import VALIDATION


class FitLoop:
    """One call of `Trainer.fit`, from the trainer's position to its end."""

    def __init__(self, trainer) -> None:
        self.trainer, self.module, self.step = trainer, trainer.module, trainer.step
        self.ranks, self.arguments = trainer.ranks, trainer.arguments
        steps, epochs = self.arguments.max_steps, self.arguments.max_epochs
        self.max_steps = math.inf if steps is None else steps
        self.max_epochs = math.inf if epochs is None or steps is not None else epochs
        self.numbers = MetricBuffer(trainer)
        self.previous: StepOutputs | None = None
        self.overfitted: list | None = None

    def run(self) -> None:
        """Train to the end, or until a signal; SystemExit after a signal, once all is saved."""
        trainer, module = self.trainer, self.module
        error: BaseException | None = None
        limits = self.arguments
        with (
            SignalGuard() as guard,
            self.ranks.watch(self._where),
            memory_limits(limits.memory_limit, limits.cache_limit, limits.wired_limit),
        ):
            trainer.guard, trainer.loop = guard, self
            try:
                self._sanity_check()
                if not module.training:
                    module.train()
                trainer.call_callbacks(lambda c: c.on_train_start(trainer, module))
                module.on_train_start()
                self.numbers.begin_interval()
                self._sync()
                while not self._finished():
                    self._epoch()
                mx.eval(self.step.state())
                module.on_train_end()
                trainer.call_callbacks(lambda c: c.on_train_end(trainer, module))
                self.flush()
                self._sync()
                trainer.check_signal()  # one that came too late for a step
            except Interrupted:
                self._save_and_exit(self.ranks.signal(guard.received))
            except BaseException as caught:
                error = caught
                if isinstance(error, RuntimeError) and (reason := lost_connection(error)):
                    message = lost(self.ranks.rank, reason, self._where())
                    print(message, file=sys.stderr, flush=True)
                    raise SystemExit(1) from None
                if isinstance(error, RuntimeError) and self.step.changed:
                    error.add_note(f"a batch differs from the batch before: {self.step.changed}")
                self._call_after(error, lambda c: c.on_exception(trainer, module, error))
                raise
            finally:
                trainer.guard = trainer.loop = None
                self.step.remember()
                self._call_after(error, lambda c: c.teardown(trainer, module))

    def _call_after(self, error: BaseException | None, hook) -> None:
        """Run a hook of every callback; after an error their own errors become notes on it."""

        def guarded(callback):
            try:
                hook(callback)
            except Exception as second:
                if error is None:
                    raise
                error.add_note(f"then {type(callback).__name__} failed: {second}")

        self.trainer.call_callbacks(guarded)

    def _finished(self) -> bool:
        return self._stopping() or self.trainer.current_epoch >= self.max_epochs

    def _stopping(self) -> bool:
        """Whether training ends before its epochs do; the same on all ranks."""
        if self.trainer.global_step >= self.max_steps:
            return True
        return self.ranks.should_stop(self._wants_to_stop())

    def _wants_to_stop(self) -> bool:
        trainer = self.trainer
        return trainer.should_stop or trainer.elapsed() >= (self.arguments.max_time or math.inf)

    def _sync(self) -> None:
        """Agree with the other ranks on signals and on stopping."""
        self.ranks.sync_status(self.trainer.guard.received, self._wants_to_stop())

    def _where(self) -> str:
        """The step, and how to continue, for the message of a run that ends suddenly."""
        trainer, saver = self.trainer, self.trainer.checkpoint_callback
        last = None if saver is None else saver.folder(trainer) / "last"
        how = trainer.how_to_continue.format(path=last)
        hint = f"; to continue: {how}" if last and last.exists() else ""
        return f"at step {trainer.global_step}{hint}"

    def _epoch(self) -> None:
        trainer, module = self.trainer, self.module
        trainer.epoch_finished = False
        module.on_train_epoch_start(trainer.current_epoch)
        trainer.call_callbacks(lambda c: c.on_train_epoch_start(trainer, module))
        self.step.refresh()
        if trainer.validation_due:
            self._validate_inside()
        exhausted = self._batches()
        self.drain()
        self._end_epoch(exhausted)

    def _batches(self) -> bool:
        """Run the epoch's batches; False when it was left before their end."""
        trainer = self.trainer
        total = trainer.num_training_batches
        self.ranks.check_batches(total)
        start = trainer.batches_done
        if not start:
            trainer.checked_batches = 0
        if total is None or start < total:
            for batch in self._remaining(total, start):
                self._train_batch(batch, total)
                if trainer.group == 0:
                    trainer.check_signal()
                    if trainer.validation_due:
                        self._validate_inside()
                    if self._stopping():
                        return trainer.batches_done == total
            if trainer.group:  # the loader has no length
                self._optimize()
                self._log_interval()
            self._sync()
            trainer.check_signal()
        if self.ranks.size > 1 and trainer.batches_done < total:
            raise ValueError(
                f"the training loader gave {trainer.batches_done} of {total} batches to rank "
                f"{self.ranks.rank}, and the other ranks wait for the rest"
            )
        if trainer.batches_done == 0:
            raise ValueError(
                f"the training loader gave no batch in epoch {trainer.current_epoch}: {NO_BATCH}"
            )
        return True

    def _remaining(self, total: int | None, start: int):
        trainer, loader = self.trainer, self.trainer.train_loader
        if self.overfitted is not None:
            return self.overfitted[start:]
        if hasattr(loader, "set_epoch"):  # overfitting: the same batches when it is continued
            loader.set_epoch(0 if self.arguments.overfit_batches else trainer.current_epoch)
        if self.arguments.overfit_batches:
            self.overfitted = list(itertools.islice(loader, total))
            return self.overfitted[start:]
        skip = 0 if trainer.loader_resumes else start
        trainer.loader_resumes = False
        return itertools.islice(loader, skip, None if total is None else total - start + skip)

    def _train_batch(self, batch, total: int | None) -> None:
        trainer, module, index = self.trainer, self.module, self.trainer.batches_done
        trainer.call_callbacks(lambda c: c.on_train_batch_start(trainer, module, batch, index))
        accumulate = self.arguments.accumulate_grad_batches > 1
        owned = owns(trainer.train_loader, index)
        self.ranks.post_status(owned, trainer.guard.received, self._wants_to_stop())
        self.ranks.seed(self.arguments.seed, trainer.current_epoch, index)
        outputs = self.step.add(batch) if accumulate else self.step(batch)
        self._dispatch(outputs)
        self.ranks.poll_status()
        self.numbers.add(trainer.global_step, outputs)
        trainer.batches_done += 1
        if not accumulate:
            trainer.global_step += 1
        else:
            trainer.group += 1
            full = trainer.group == self.arguments.accumulate_grad_batches
            if full or trainer.batches_done == total:
                self._optimize()
        if trainer.group == 0:
            self._log_interval()
            trainer.validation_due = self._validation_is_due(total)
        trainer.call_callbacks(
            lambda c: c.on_train_batch_end(trainer, module, outputs, batch, index)
        )

    def _optimize(self) -> None:
        outputs = self.step.apply()
        self._dispatch(outputs)
        self.numbers.add(self.trainer.global_step, outputs)
        self.trainer.group = 0
        self.trainer.global_step += 1

    def _dispatch(self, outputs: StepOutputs) -> None:
        """Start computing; return once the step before this one is done, so that the queue holds
        one step while the next batch is loaded."""
        with self.ranks.waiting():
            if self.arguments.debug_lazy_eval:
                mx.eval(self.step.state(), outputs.vector)
            mx.async_eval(self.step.state(), mx.random.state, outputs.vector)
            if self.previous is not None:
                mx.eval(self.previous.vector)
                self.trainer.latest = self.previous
        self.previous = outputs

    # Numbers

    def drain(self) -> None:
        """Read the numbers of all steps so far."""
        self.numbers.drain()

    def _log_interval(self) -> None:
        trainer = self.trainer
        if trainer.global_step % self.arguments.log_every_n_steps:
            return
        self.drain()
        row = self.numbers.row()
        trainer.interval = Averages()
        trainer.call_callbacks(lambda c: c.on_log(trainer, self.module))
        trainer.history.add_log(self._stamp() | trainer.log_metrics(row))
        self.numbers.begin_interval()

    def flush(self) -> None:
        """Add what hooks logged since the epoch's row to that row; loggers get one more."""
        if self.trainer.records.waiting:
            self.trainer.history.amend_epoch(self.trainer.log_metrics({}))

    def _stamp(self) -> dict:
        return {"epoch": self.trainer.current_epoch, "step": self.trainer.global_step}

    # Validation, ends, stops

    def _validation_batches(self) -> int | None:
        loader = self.trainer.val_loader
        return 0 if loader is None else self.trainer.count_batches(loader, "limit_val_batches")

    def _validates_this_epoch(self) -> bool:
        due = (self.trainer.current_epoch + 1) % self.arguments.check_val_every_n_epoch == 0
        return due and self._validation_batches() != 0

    def _validation_is_due(self, total: int | None) -> bool:
        """Whether `val_check_interval` wants a validation now, inside the epoch."""
        trainer, interval = self.trainer, self.arguments.val_check_interval
        if not isinstance(interval, float):
            return trainer.global_step % interval == 0 and self._validation_batches() != 0
        if interval == 1.0 or not self._validates_this_epoch():
            return False
        if total is None:
            raise ValueError(
                f"val_check_interval is {interval!r}, a share, but the training loader has no "
                f"length: give a whole number of steps"
            )
        every = max(1, int(total * interval))
        passed = trainer.batches_done // every > trainer.checked_batches // every
        trainer.checked_batches = trainer.batches_done
        return passed and trainer.batches_done < total

    def _validate_inside(self) -> None:
        trainer = self.trainer
        self.drain()
        metrics = self._validate()
        trainer.history.add_log(self._stamp() | trainer.log_metrics(metrics))
        trainer.call_callbacks(lambda c: c.on_validation_end(trainer, self.module))
        self._sync()

    def _validate(self) -> dict:
        trainer = self.trainer
        paused = time.monotonic()
        loader, batches = trainer.val_loader, self._validation_batches()
        if self.overfitted is not None:
            numbered = enumerate(self.overfitted)
            loader = [batch for index, batch in numbered if owns(trainer.train_loader, index)]
            batches = None
        with evaluating(trainer):
            metrics = evaluate(trainer, loader, "validation_step", "val_", batches)
        trainer.validation_due, trainer.validated_step = False, trainer.global_step
        self.module.on_validation_end(metrics)
        self.step.refresh()
        self.numbers.began += time.monotonic() - paused
        return metrics

    def _sanity_check(self) -> None:
        trainer, steps = self.trainer, self.arguments.num_sanity_val_steps
        batches = self._validation_batches()
        once = isinstance(trainer.val_loader, Iterator)  # its batches would be missing later
        if not steps or batches == 0 or trainer.global_step or once:
            return
        trainer.sanity_checking = True
        try:
            with evaluating(trainer):
                count = steps if batches is None else min(steps, batches)
                evaluate(trainer, trainer.val_loader, "validation_step", "val_", count)
        finally:
            trainer.sanity_checking = False

    def _end_epoch(self, exhausted: bool) -> None:
        trainer, module = self.trainer, self.module
        means = trainer.averages.means().items()
        metrics = {in_stage("train_", name): value for name, value in means}
        validated = self._validates_at_end(exhausted)
        if validated:
            metrics |= self._validate()
        metrics["learning_rate"] = trainer.current_learning_rate()
        trainer.epoch_finished, trainer.epoch_ending = exhausted, True
        trainer.validated_now = validated
        trainer.call_callbacks(lambda c: c.on_log(trainer, module))
        trainer.callback_metrics.update(metrics)
        module.on_train_epoch_end(trainer.current_epoch, dict(trainer.callback_metrics))
        earlier = {} if validated else self._last_validation()
        trainer.history.add_epoch(self._stamp() | earlier | trainer.log_metrics(metrics))
        if validated:
            trainer.call_callbacks(lambda c: c.on_validation_end(trainer, module))
        trainer.call_callbacks(lambda c: c.on_train_epoch_end(trainer, module))
        self.flush()
        trainer.call_callbacks(lambda c: c.on_epoch_end(trainer, EpochState(trainer)))
        self.flush()
        trainer.epoch_finished = trainer.epoch_ending = False
        self._sync()
        if exhausted:
            trainer.current_epoch += 1
            trainer.batches_done, trainer.averages = 0, Averages()
        assert exhausted or self._finished(), "an epoch was left early, but training goes on"

    def _validates_at_end(self, exhausted: bool) -> bool:
        """At the end of its epochs with a share as interval; and always the run's last state."""
        trainer = self.trainer
        if self._validation_batches() == 0 or trainer.validated_step == trainer.global_step:
            return False
        ends = self._stopping() or trainer.current_epoch + 1 == self.max_epochs
        last = not exhausted or ends
        by_epoch = isinstance(self.arguments.val_check_interval, float)
        return last or by_epoch and self._validates_this_epoch()

    def _last_validation(self) -> dict:
        """Numbers of the last validation inside the epoch, if there was one."""
        epoch = self.trainer.current_epoch
        rows = [row for row in self.trainer.history.log if row["epoch"] == epoch]
        return {k: v for row in rows for k, v in row.items() if k.startswith(VALIDATION)}

    def _save_and_exit(self, number: int) -> None:
        trainer, saver = self.trainer, self.trainer.checkpoint_callback
        self.drain()
        if saver is None:
            message = "stopped; nothing was saved, because enable_checkpointing is False"
        else:
            path = saver.write_last(trainer)
            how = trainer.how_to_continue.format(path=path)
            message = f"stopped at step {trainer.global_step} and saved; to continue: {how}"
        if trainer.is_global_zero:
            print(message, file=sys.stderr, flush=True)
        self.ranks.gather(None, saving=True)  # a launcher ends all once the first is gone
        raise SystemExit(128 + number)


class EpochState:
    """The state that `Callback.on_epoch_end(trainer, state)` gets."""

    def __init__(self, trainer) -> None:
        self.epoch, self.global_step = trainer.current_epoch, trainer.global_step
        self.metrics = dict(trainer.callback_metrics)
