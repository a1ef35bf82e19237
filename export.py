"""Export a trained model to ONNX, through Optimum where it is installed, and check it against torch on speech.

    python export.py --model runs/demo/model
    python export.py --model user/name --output runs/onnx
    python export.py --model runs/demo/model --quantize int8 --dataset demo
    python export.py --model runs/demo/model --fp16

`ORTModelForAudioFrameClassification.from_pretrained(output)` loads the result. int8 is for CPUs: it is calibrated on
training speech, and the DER it costs is measured on unseen speakers. fp16 is for GPUs. Both compute the log-mel
spectrogram in float32.
"""

import argparse

from common.errors import unknown_argument
from common.flags import FlagParser
from common.program import end_quietly


def main() -> None:
    arguments = parse()
    from publishing.onnx_files import export_model  # takes seconds, which --help need not

    int8 = arguments.quantize == "int8"
    export_model(arguments.model, arguments.output, int8, arguments.fp16, arguments.dataset)


def parse() -> argparse.Namespace:
    parser = FlagParser(description=__doc__)
    parser.add_argument("--model", required=True, help="model directory or Hub id")
    parser.add_argument("--output", metavar="DIR", help="directory to write to (default: the model directory)")
    parser.add_argument("--quantize", choices=("int8",), help="also write model_int8.onnx, for CPUs")
    parser.add_argument("--fp16", action="store_true", help="also write model_fp16.onnx, for GPUs")
    parser.add_argument(
        "--dataset",
        help="corpus to calibrate and score int8 on: any that train.py accepts (default: demo)",
    )
    arguments, unknown = parser.parse_known_args()
    if unknown:
        parser.error(unknown_argument(unknown[0]))
    if arguments.dataset and not arguments.quantize:
        parser.error("--dataset is what int8 is calibrated on; add --quantize int8, or leave it out")
    arguments.dataset = arguments.dataset or "demo"
    return arguments


if __name__ == "__main__":
    end_quietly()
    main()
