"""transformers' Trainer on an endless stream, whose position is part of every checkpoint."""

import json
import logging
import signal
import time
from itertools import islice
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import Trainer, TrainerCallback
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_callback import ExportableState, PrinterCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from common.errors import first_line
from common.words import number_word
from data.corpora import CorpusError
from data.streaming import PositionedLoader
from evaluation.window_scores import WindowScores, speaker_group
from training.anchor import EmbeddingAnchor
from training.checkpoints import Keeper, discard_old
from training.divergence import DivergenceGuard, refuse_divergence
from training.norms import frozen_norms
from training.ownership import RunDirectory
from training.progress import ProgressLines, evaluation_lines, place, write
from training.restoring import read_trainer_state, restoring, stream_state_file
from training.sealing import fault_of, is_foreign, mark, remove, seal
from training.state_files import (
    SCALER,
    SCHEDULER,
    load_numbers,
    load_optimizer,
    load_random_state,
    save_numbers,
    save_optimizer,
    save_random_state,
)
from training.teacher_voices import TeacherVoices

logger = logging.getLogger(__name__)


class StreamingTrainer(Trainer):
    """Trains on a `LanedStream` and evaluates on the first `eval_batches` batches of another one for each corpus.

    The loader is used without accelerate's wrapper, which would read one batch ahead and lose the position.

    Args:
        run: the directory of the run, in the process that writes to it.
        settings: what is kept in each checkpoint of what the run was told.
    """

    def __init__(
        self,
        *args,
        workers: int,
        eval_batches: int,
        keeper: Keeper,
        run: RunDirectory | None,
        settings: dict,
        voices: TeacherVoices | None = None,
        freeze_norms: bool = False,
        anchor: EmbeddingAnchor | None = None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.keeper, self.voices, self.anchor = keeper, voices, anchor
        self.frozen_norms = frozen_norms(self.model, freeze_norms)
        self.run, self.settings = run, settings
        self.loader = PositionedLoader(self.train_dataset, workers)
        self.eval_windows = {
            corpus: list(islice(PositionedLoader(stream, 0), eval_batches))
            for corpus, stream in self.eval_dataset.items()
        }
        self.model_accepts_loss_kwargs = False
        self.terms: dict[str, torch.Tensor] = {}
        self.terms_added = 0
        self.finite_loss: torch.Tensor | None = None
        self.flos_per_sample = 6 * self.model.num_parameters(exclude_embeddings=True)
        for callback in (PrinterCallback, DEFAULT_PROGRESS_CALLBACK):
            self.remove_callback(callback)
        self.add_callback(ProgressLines())
        self.divergence = DivergenceGuard()
        self.add_callback(self.divergence)

    def get_train_dataloader(self) -> PositionedLoader:
        return self.loader

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        if self.voices:
            rows = self.voices.rows_of(inputs["speaker_labels"])
            inputs = inputs | {"voice_labels": rows, "voices": self.voices.voices}
        for norm in self.frozen_norms:  # which the Trainer sets to training before each step
            norm.eval()
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        if self.anchor:
            outputs["losses"]["anchor"] = distance = self.anchor.distance(outputs["speaker_embeddings"], inputs)
            loss = loss + self.anchor.weight * distance
        for name, term in outputs["losses"].items():  # summed on the device, which only `log` waits for
            self.terms[name] = self.terms.get(name, 0) + term.detach()
        self.terms_added += 1
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Also log the unweighted mean of each loss term since the last line, as `loss_NAME`."""
        if "loss" in logs and self.terms:
            means = self.accelerator.reduce(torch.stack([*self.terms.values()]) / self.terms_added, "mean").tolist()
            logs |= {f"loss_{name}": round(mean, 4) for name, mean in zip(self.terms, means)}
            self.terms, self.terms_added = {}, 0
        super().log(logs, *args, **kwargs)

    def training_step(self, *args, **kwargs) -> torch.Tensor:
        """The loss, to be logged: one that is not finite is replaced by the one before, on the device.

        The Trainer's own `logging_nan_inf_filter` waits for the device at every step.
        """
        loss = super().training_step(*args, **kwargs)
        finite = self.divergence.note(self.state.global_step + 1, loss)
        before = torch.zeros_like(loss) if self.finite_loss is None else self.finite_loss
        self.finite_loss = torch.where(finite, loss, before)
        return self.finite_loss

    def _prepare_inputs(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        # The loader gives pinned memory, so that the copy need not be waited for.
        return {name: value.to(self.args.device, non_blocking=True) for name, value in inputs.items()}

    def floating_point_ops(self, inputs: dict[str, torch.Tensor]) -> int:
        # The model's own method counts its parameters at every step.
        return self.flos_per_sample * inputs["input_values"].numel()

    def train(self, resume_from_checkpoint: Path | None = None) -> None:
        """Train to the last step; a checkpoint that has reached it is only loaded.

        Raises:
            CorpusError: the stream gave up; what was trained so far is saved first.
            CheckpointError: the checkpoint holds objects that this program does not write.
            Diverged: losses or weights are NaN or infinite; nothing of that is saved.
        """
        if resume_from_checkpoint:
            state = read_trainer_state(resume_from_checkpoint)
            if state.global_step >= self.args.max_steps:
                self.state = state
                logger.info("already trained to step %d; nothing is left to do", state.global_step)
                return self._load_from_checkpoint(str(resume_from_checkpoint))
        try:
            super().train(resume_from_checkpoint=resume_from_checkpoint and str(resume_from_checkpoint))
        except CorpusError:
            refuse_divergence(self.model, Path(self.args.output_dir), self.state.global_step)
            if self.state.global_step and self.args.world_size == 1 and fault_of(self._checkpoint()):
                self._save_checkpoint(self.model, trial=None)
            raise

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        with restoring(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_callback_state(self) -> None:
        with restoring(self._checkpoint()):
            super()._load_callback_state()

    def _save_optimizer_and_scheduler(self, output_dir) -> None:
        if self.args.should_save:
            save_optimizer(self.optimizer, Path(output_dir))
            save_numbers(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER)

    def _load_optimizer_and_scheduler(self, checkpoint) -> None:
        if checkpoint is not None:
            with restoring(checkpoint):
                load_optimizer(self.optimizer, Path(checkpoint))
                self.lr_scheduler.load_state_dict(load_numbers(Path(checkpoint) / SCHEDULER))

    def _save_scaler(self, output_dir) -> None:
        if self.accelerator.scaler is not None and self.args.should_save:
            save_numbers(self.accelerator.scaler.state_dict(), Path(output_dir) / SCALER)

    def _load_scaler(self, checkpoint) -> None:
        if checkpoint is None:
            return
        with restoring(checkpoint):
            state = load_numbers(Path(checkpoint) / SCALER)
            if state and self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(state)
            elif state:
                logger.warning("the checkpoint's scale of the loss is left out: this run does not use fp16")
            elif self.accelerator.scaler is not None:
                logger.warning("the checkpoint has no scale of the loss, which begins anew: it was made without fp16")

    def _random_state(self, checkpoint) -> Path:
        rank = f"_{self.args.process_index}" if self.args.world_size > 1 else ""
        return Path(checkpoint) / f"rng_state{rank}.json"

    def _save_rng_state(self, output_dir) -> None:
        save_random_state(self._random_state(output_dir))

    def _load_rng_state(self, checkpoint) -> None:
        if checkpoint is None:
            return
        with restoring(checkpoint):
            if not self._random_state(checkpoint).exists():
                super()._load_rng_state(checkpoint)  # of a version before 0.2
            elif not load_random_state(self._random_state(checkpoint)):
                logger.warning("the checkpoint was made with other GPUs, so random numbers continue differently")

    def _save(self, output_dir=None, state_dict=None) -> None:
        # Without the Trainer's pickle of its arguments.
        self.accelerator.unwrap_model(self.model).save_pretrained(output_dir, state_dict=state_dict)
        self.processing_class.save_pretrained(output_dir)

    def compare_trainer_and_checkpoint_args(self, training_args, trainer_state) -> None:
        # Logging, evaluation and saving follow this run's arguments, not the checkpoint's.
        trainer_state.compute_steps(training_args, training_args.max_steps)

    def get_batch_samples(self, *args, **kwargs):
        place = self.loader.stream.state
        try:
            return super().get_batch_samples(*args, **kwargs)
        except CorpusError:
            self.loader.stream.state = place  # the position after the last step, so that it can be saved
            raise

    @torch.no_grad()
    def score_windows(self) -> dict:
        """Score the model on the evaluation windows, whose speakers or recordings were not trained on.

        Returns:
            `WindowScores.result` of all windows, and of several corpora by their names in `corpora`.
        """
        model = self.accelerator.unwrap_model(self.model).eval()
        speakers = self.train_dataset.num_speakers
        of_all, of_each = WindowScores(speakers), {corpus: WindowScores(speakers) for corpus in self.eval_windows}
        batches = [(corpus, batch) for corpus, batches in self.eval_windows.items() for batch in batches]
        for corpus, batch in tqdm(
            batches, "evaluating", leave=False, disable=None if self.is_world_process_zero() else True
        ):
            with self.compute_loss_context_manager():
                logits = model(batch["input_values"].to(self.args.device)).logits
            for scores in (of_all, of_each[corpus]):
                scores.add((logits > 0).cpu().numpy(), (batch["labels"] > 0.5).numpy())
        by_corpus = {corpus: scores.result() for corpus, scores in of_each.items()}
        return of_all.result() | ({"corpora": by_corpus} if len(by_corpus) > 1 else {})

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval") -> dict[str, float]:
        result = self.score_windows()
        results = {"": result} | {f"{corpus}_": scores for corpus, scores in result.get("corpora", {}).items()}
        rates = {"der": ("all_windows", "diarization_error_rate"), "frame_accuracy": ("all_windows", "frame_accuracy")}
        for speakers in range(2, self.train_dataset.num_speakers + 1):
            rates[f"{number_word(speakers)}_speaker_der"] = (speaker_group(speakers), "diarization_error_rate")
        metrics = {
            f"{metric_key_prefix}_{corpus}{prefix}{name}": scores.get(group, {}).get(prefix + rate)
            for corpus, scores in results.items()
            for name, (group, rate) in rates.items()
            for prefix in ("", "floor_")
        }
        if self.is_world_process_zero():
            for line in evaluation_lines(result):
                write(f"{place(self.state)}: {line}")
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _checkpoint(self) -> Path:
        return Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"

    def _save_checkpoint(self, model, trial):
        checkpoint = self._checkpoint()
        if self.run:
            self.run.check()
        if checkpoint.exists() and is_foreign(checkpoint):
            logger.error("%s was written by another program, so this step is not saved; move it away", checkpoint)
            return
        try:
            self._write_checkpoint(checkpoint, model)
        except Exception as error:  # each library reports a full disk in its own way
            if self.args.world_size > 1:
                raise
            remove(checkpoint)
            logger.error("%s could not be saved (%s); the one before it is kept", checkpoint.name, first_line(error))
            return
        if self.is_world_process_zero():
            discard_old(checkpoint.parent, self.args.save_total_limit, self.run.name)
            self.keeper.keep(checkpoint)

    def _write_checkpoint(self, checkpoint: Path, model) -> None:
        if self.is_world_process_zero():
            remove(checkpoint)  # left by an interrupted save
            mark(checkpoint, {"run": self.run.name, "settings": self.settings})
        self.accelerator.wait_for_everyone()
        stream_state_file(checkpoint, self.args.process_index).write_text(json.dumps(self.loader.state_dict()))
        super()._save_checkpoint(model, trial=None)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            seal(checkpoint)

    def _rotate_checkpoints(self, use_mtime=False, output_dir=None) -> None:
        """Do nothing: the Trainer would count incomplete checkpoints. `discard_old` removes old ones after sealing."""


class SaveAndLeave(TrainerCallback):
    """On SIGTERM or Ctrl-C, saves after the current step and stops; a second Ctrl-C stops at once."""

    def __init__(self):
        self.signal: int | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}

    def on_train_end(self, args, state, control, **kwargs):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        logger.warning("%s: saving after this step", signal.Signals(number).name)
        self.signal = number
        signal.signal(number, signal.SIG_DFL)

    def on_step_end(self, args, state, control, **kwargs):
        asked = self.signal is not None
        if args.world_size > 1:
            flag = torch.tensor(float(asked), device=args.device)
            torch.distributed.all_reduce(flag)
            asked = flag.item() > 0
        if asked:
            self.signal = self.signal or signal.SIGTERM
            control.should_save = control.should_training_stop = True


class Clock(TrainerCallback, ExportableState):
    """Seconds spent training, over all resumed runs; kept in the checkpoint."""

    def __init__(self, seconds: float = 0.0):
        self.before = self.seconds = seconds

    def on_train_begin(self, args, state, control, **kwargs):
        self.started = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds = self.before + time.monotonic() - self.started

    def state(self) -> dict:
        return {"args": {"seconds": self.seconds}, "attributes": {}}
