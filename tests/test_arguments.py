"""Flags and files of flags that cannot be: one line each, at no cost, and without a token in it."""

import sys
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bench
import diarize
import export
from evaluation.__main__ import parse as evaluate
from training.arguments import UsageError, parse
from training.flag_file import LARGEST, read_flag_file


def refused(*flags: str) -> str:
    with pytest.raises(UsageError) as refusal:
        parse("", list(flags))
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 600
    return str(refusal.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--seed -1", "--seed must be at least 0, got -1"),
        (f"--seed {2**32}", "--seed must be at most 4.29497e+09, got 4294967296"),
        ("--data_seed -1", "--data_seed must be at least 0, got -1"),
        ("--max_steps -1", "--max_steps must be at least 1, got -1"),
        ("--max_steps " + "9" * 5_000, "--max-steps: invalid int value: '9999"),
        (
            "--per_device_train_batch_size 1000000000",
            "--per_device_train_batch_size must be at most 65536, got 10000000",
        ),
        ("--learning_rate nan", "--learning_rate must be at least 0, got nan"),
        ("--learning_rate inf", "--learning_rate must be at most 100, got inf"),
        ("--adam_epsilon 0", "--adam_epsilon must be above 0, got 0.0"),
        ("--adam_beta2 1", "--adam_beta2 must be at most 0.999999, got 1.0"),
        ("--adam_beta1 nan", "--adam_beta1 must be at least 0, got nan"),
        ("--weight_decay -1", "--weight_decay must be at least 0, got -1.0"),
        ("--max_grad_norm nan", "--max_grad_norm must be at least 0, got nan"),
        ("--warmup_steps -5", "warmup_steps"),
        ("--warmup_ratio 2", "warmup_ratio"),
        ("--save_total_limit 0", "--save_total_limit must be at least 1, got 0"),
        ("--eval_steps -3", "--eval_steps must be at least 1e-06, got -3"),
        ("--dropout nan", "--dropout must be a number from 0 to 0.99, got nan"),
        ("--hidden_size 80000000", "--hidden_size must be a whole number from 8 to 1024, got 80000000"),
        ("--speaker_loss_weight inf", "--speaker_loss_weight must be a number from 0 to 1e+06, got inf"),
        ("--lr_scheduler_kwargs [1]", "--lr_scheduler_kwargs must be a JSON mapping, got '[1]'"),
        ("--fsdp_config {", ""),
    ],
)
def test_a_number_that_cannot_be_is_one_line(flags, message, tmp_path):
    assert message in refused("--output_dir", str(tmp_path), *flags.split())


@pytest.mark.parametrize(
    "flags", ["--hub_tokn=hf_secret", "--hub_tokn hf_secret", "--push_to_hub hf_secret", "--max_steps hf_secret"]
)
def test_a_token_is_not_repeated(flags):
    said = refused(*flags.split())
    assert "secret" not in said
    assert "hub_tokn" not in flags or said == "unknown flag --hub_tokn; did you mean --hub_token?; see --help"


def test_export_does_not_repeat_it_either(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["export.py", "--model", "x", "--hub_tokn=hf_secret"])
    with pytest.raises(SystemExit):
        export.parse()
    assert capsys.readouterr().err.splitlines()[-1].endswith(": error: unknown flag --hub_tokn")


@pytest.mark.parametrize("command", [["bench.py", "train"], ["evaluation", "calls"], ["diarize.py", "call.wav"]])
@pytest.mark.parametrize("flags", [["--hub_tokn=hf_secret"], ["--hub-tokn", "secret"], ["--token", "hf_secret"]])
def test_no_program_repeats_it(monkeypatch, capsys, command, flags):
    programs = {"bench.py": bench.parse, "evaluation": evaluate, "diarize.py": lambda: diarize.parse(None)}
    monkeypatch.setattr(sys, "argv", [*command, *flags])
    with pytest.raises(SystemExit):
        programs[command[0]]()
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(f"error: unknown flag {flags[0].partition('=')[0].replace('hub-', 'hub_')}")


BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [{', '.join(9 * ['*' + a])}]\n" for a, b in zip("abcdefgh", "bcdefghi"))
MERGES = "a: &a {k: 1}\n" + "".join(f"{b}: &{b} {{<<: [*{a}, *{a}]}}\n" for a, b in zip("abcdefgh", "bcdefghi"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_steps: " + "9" * 5_000, "holds a value that cannot be read: Exceeds the limit"),
        ("max_steps: 0x" + "f" * 20_000, "holds a value that cannot be read: Exceeds the limit"),
        ("seed: 2026-99-99", "holds a value that cannot be read: month must be in 1..12"),
        ("seed: " + "[" * 20_000, "line 1 nests deeper than a list of values"),
        ("seed:\n" + "".join(f"{' ' * n}- \n" for n in range(1, 200)), "line 3 nests deeper than a list of values"),
        ("seed: {a: 1}", "gives 'seed' a mapping; write a value, or JSON in quotes"),
        ("seed: !!set {a, b}", "gives 'seed' a mapping"),
        (BOMB, "*a is an alias; write the value itself"),
        (MERGES, "line 2 nests deeper"),
        ("a: &a [*a]", "*a is an alias; write the value itself"),
        ("#" * (LARGEST + 1), f"has more than {LARGEST} bytes"),
        ("!!python/object/apply:os.system [true]", "is not valid YAML, see line 1"),
        ("? [a]\n: 1", "is not valid YAML, see line 1"),
        ("\0", "is not valid YAML"),
        (b"\xff\xfe\xfd", "is not valid YAML"),
        ("", "must hold lines of `flag: value`, got NoneType"),
        ("seed", "must hold lines of `flag: value`, got str"),
        ("- seed", "must hold lines of `flag: value`, got list"),
        ("max_steps: [ten, 3]", "unrecognized|unknown|a value without a flag|invalid int value"),
        ("1: 2", "unknown key 1"),
        ("k" * 500 + ": 2", "unknown key 'kkkkk"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_file_of_anything_is_one_line(text, message, tmp_path):
    file = tmp_path / "flags.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    said = refused("--config", str(file))
    assert any(part in said for part in message.split("|")), said


def test_a_file_without_an_end_is_not_read_to_it():
    assert "more than" in refused("--config", "/dev/zero")


@pytest.mark.slow
@given(st.dictionaries(st.from_regex(r"k[a-z_]{1,8}", fullmatch=True), st.integers() | st.booleans(), min_size=1))
def test_plain_values_are_what_they_are_in_a_command(values):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write("".join(f"{key}: {value}\n" for key, value in values.items()))
        file.flush()
        assert read_flag_file(file.name) == {key: str(value) for key, value in values.items()}
