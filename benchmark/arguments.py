"""The flags of each command of bench.py; apart from what they measure with, which takes seconds to import."""

import argparse

from diarization.providers import PROVIDERS


def of_latency(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="directory written by export.py")
    parser.add_argument("--file_name", default="model.onnx", help="ONNX file in it (default %(default)s)")
    parser.add_argument(
        "--provider",
        choices=PROVIDERS,
        default="cpu",
        help="ONNX Runtime provider (default %(default)s); an unavailable one is an error",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads per call (default %(default)s)")
    parser.add_argument("--window_seconds", type=float, default=3.0, help="window length (default %(default)s)")
    parser.add_argument("--windows", type=int, default=1000, help="windows to time (default %(default)s)")
    parser.add_argument("--peer", help="segmentation-3.0 as ONNX, timed in alternation with the model")


def of_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", default="demo", help="corpus: any that train.py accepts (default %(default)s)")
    parser.add_argument("--noise", nargs="+", metavar="DIR", help="directories of recorded backgrounds and sounds")
    parser.add_argument("--rooms", metavar="DIR", help="directory of measured room responses")
    parser.add_argument("--workers", type=int, default=2, help="processes that make windows (default %(default)s)")
    parser.add_argument("--batches", type=int, default=688, help="timed batches (default %(default)s)")


def of_recording(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="directory written by export.py")
    parser.add_argument("--file_name", default="model.onnx", help="ONNX file in it (default %(default)s)")
    parser.add_argument("--dataset", default="demo", help="corpus to make the recordings of (default %(default)s)")
    parser.add_argument(
        "--minutes",
        type=float,
        nargs="+",
        default=[1, 10, 60, 300],
        help="lengths of the recordings (default 1 10 60 300)",
    )
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="numbers of windows computed in parallel (default 1 2)"
    )
    parser.add_argument("--hop_seconds", type=float, help="step between windows (default: the model's)")


def of_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", default="demo", help="corpus: any that train.py accepts (default %(default)s)")
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="default %(default)s; an unavailable device is an error",
    )
    parser.add_argument(
        "--bf16", action="store_true", help="use bfloat16 on the CPU, as train.py --bf16 --use_cpu does"
    )
    parser.add_argument("--encoder_type", default="lightweight-cnn", help="encoder (default %(default)s)")
    parser.add_argument("--batch_size", type=int, default=32, help="windows per batch (default %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes that make windows (default %(default)s)")
    parser.add_argument("--steps", type=int, default=30, help="timed steps (default %(default)s)")


def of_peers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recordings", metavar="DIR", help="directory of audio and RTTM files")
    parser.add_argument("--model", nargs="+", required=True, help="our model directories or ONNX files")
    parser.add_argument("--segmentation", metavar="ONNX", help="pyannote segmentation-3.0")
    parser.add_argument("--embedding", metavar="PT", help="CAM++ as a TorchScript file")
    parser.add_argument("--picture", metavar="PNG", help="picture of DER by processor time")


def of_gpu(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="model directory with its ONNX file")
    parser.add_argument("--dataset", default="demo", help="corpus: any that train.py accepts (default %(default)s)")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="default %(default)s; an unavailable one is an error"
    )
    parser.add_argument("--minutes", type=float, default=12.0, help="time for everything (default %(default)s)")
    parser.add_argument("--windows", type=int, default=2000, help="windows to time (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="time of each training speed (default %(default)s)")
    parser.add_argument(
        "--batch_size",
        type=int,
        nargs="+",
        default=[32, 64, 128, 256],
        help="windows per batch (default 32 64 128 256)",
    )
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[8, 4, 2, 1, 0], help="data workers (default 8 4 2 1 0)"
    )
    parser.add_argument("--steps", type=int, default=200, help="steps of the resumed run (default %(default)s)")
