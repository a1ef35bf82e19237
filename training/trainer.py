"""transformers' Trainer, fed by an endless stream whose place is part of every checkpoint."""

import json
from itertools import islice
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from data.streaming import ConversationStream, PositionedLoader
from evaluation.windows import WindowScores

SUMMARY = {
    "der": ("all_windows", "diarization_error_rate"),
    "frame_accuracy": ("all_windows", "frame_accuracy"),
    "two_speaker_der": ("two_speaker_windows", "diarization_error_rate"),
}


class StreamingTrainer(Trainer):
    """Trains on a [`ConversationStream`] and evaluates on the first `eval_batches` batches of another.

    The loader is used as it is, without accelerate's wrapper, which would read a batch ahead and lose the place.
    """

    def __init__(self, *args, workers: int, eval_batches: int, **kwargs):
        super().__init__(*args, **kwargs)
        self.loader = PositionedLoader(self.train_dataset, workers)
        self.eval_windows = list(islice(PositionedLoader(self.eval_dataset, 0), eval_batches))
        self.model_accepts_loss_kwargs = False

    def get_train_dataloader(self) -> PositionedLoader:
        return self.loader

    @torch.no_grad()
    def score_windows(self) -> WindowScores:
        """Score the model on the evaluation windows, speakers it was never trained on."""
        model = self.accelerator.unwrap_model(self.model).eval()
        scores = WindowScores()
        for batch in tqdm(self.eval_windows, "evaluating", leave=False, disable=not self.is_world_process_zero()):
            with self.compute_loss_context_manager():
                logits = model(batch["input_values"].to(self.args.device)).logits
            scores.add((logits > 0).cpu().numpy(), (batch["labels"] > 0.5).numpy())
        return scores

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval") -> dict[str, float]:
        result = self.score_windows().result()
        metrics = {}
        for name, (group, rate) in SUMMARY.items():
            for prefix in ("", "floor_"):
                metrics[f"{metric_key_prefix}_{prefix}{name}"] = result.get(group, {}).get(prefix + rate)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model, trial):
        directory = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        directory.mkdir(parents=True, exist_ok=True)
        stream_state_file(directory, self.args.process_index).write_text(json.dumps(self.loader.state_dict()))
        super()._save_checkpoint(model, trial)


def stream_state_file(checkpoint: Path, rank: int) -> Path:
    """Where a checkpoint keeps the place in the stream of one process."""
    return checkpoint / f"stream_state_{rank}.json"
