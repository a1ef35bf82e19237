"""What a training says of itself: a line for each interval of steps and for each evaluation, in per cent."""

import time
from collections.abc import Iterator, Mapping

from tqdm import tqdm
from transformers import TrainerCallback

from common.terminal import say
from evaluation.tables import group_words
from evaluation.window_scores import several_speaker_groups

DER, EXACT = "diarization_error_rate", "frame_accuracy"


class ProgressLines(TrainerCallback):
    """In place of the dictionaries that transformers prints; on a terminal a bar stays below the lines."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.begun, self.first = time.monotonic(), state.global_step
        shown = state.is_world_process_zero and not args.disable_tqdm
        self.bar = tqdm(
            total=state.max_steps, initial=self.first, unit="step", dynamic_ncols=True, disable=None if shown else True
        )

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not (state.is_world_process_zero and "loss" in logs):
            return
        done = state.global_step - self.first
        left = (time.monotonic() - self.begun) / done * (state.max_steps - state.global_step)
        write(f"{place(state)}, {duration(left)} left: {training_line(logs)}")

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()
        if state.is_world_process_zero:
            done, seconds = state.global_step - self.first, time.monotonic() - self.begun
            write(f"{done} step{'s' * (done != 1)} trained in {duration(seconds)}, {done / seconds:.1f} a second")


def write(text: str) -> None:
    """A line on standard output, above the bars there are."""
    with tqdm.external_write_mode():
        say(text)


def place(state) -> str:
    """`"step 40 of 1000 (4 %)"` of the state of a Trainer."""
    return f"step {state.global_step} of {state.max_steps} ({100 * state.global_step // state.max_steps} %)"


def training_line(logs: Mapping[str, float]) -> str:
    """The loss, its unweighted terms, and the learning rate."""
    terms = [f"{name.removeprefix('loss_')} {value:.2f}" for name, value in logs.items() if name.startswith("loss_")]
    line = f"loss {logs['loss']:.2f}" + (f" ({', '.join(terms)})" if terms else "")
    return f"{line}, learning rate {logs['learning_rate']:.2g}"


def evaluation_lines(result: Mapping) -> Iterator[str]:
    """The rates of held-out windows, of all corpora together and of each.

    Args:
        result: of `WindowScores.result`, of several corpora by their names in `corpora`.
    """
    for corpus, scores in {"": result, **result.get("corpora", {})}.items():
        every = scores["all_windows"]
        rates = [f"DER {_beside_floor(every, DER)}"]
        rates += [f"{group_words(g)} {_beside_floor(scores[g], DER)}" for g in several_speaker_groups(scores)]
        rates.append(f"frames exactly right {_beside_floor(every, EXACT)}")
        yield f"held-out windows{' of ' * bool(corpus)}{corpus} (one-speaker oracle): {', '.join(rates)}"


def _beside_floor(rates: Mapping[str, float], name: str) -> str:
    return f"{100 * rates[name]:.1f} % ({100 * rates[f'floor_{name}']:.1f} %)"


def duration(seconds: float) -> str:
    """`"40 s"`, `"12 min"` or `"3 h 5 min"`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 90 else f"{minutes} min"
