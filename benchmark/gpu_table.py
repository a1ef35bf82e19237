"""The section of docs/PERFORMANCE.md on GPUs, from docs/performance/gpu.json.

python bench.py gpu --model pretrained/lightweight-cnn      # writes the JSON file, on a machine with a GPU
python -m benchmark.gpu_table                               # writes the section
"""

import json
import re
from pathlib import Path

from common.flags import FlagParser
from common.markdown import table

DOCS = Path(__file__).parent.parent / "docs"
RESULT, PAGE = DOCS / "performance" / "gpu.json", DOCS / "PERFORMANCE.md"
SECTION = re.compile(r"(<!-- gpu: begin -->\n).*?(<!-- gpu: end -->)", re.S)
NOT_MEASURED = "Not measured: there was no GPU.\n"


def section(result: dict | None) -> str:
    """
    Args:
        result: what `bench.py gpu` wrote; `None` if it was not run.

    Raises:
        ValueError: the result is of a CPU.
    """
    if result is None:
        return NOT_MEASURED
    if result["device"] == "cpu":
        raise ValueError(f"{RESULT.name} holds results of a CPU and none of a GPU; remove it")
    parts = [_machine(result), _latency(result), _training(result), _resume(result), _absent(result)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _machine(result: dict) -> str:
    return (
        f"{result['device']} ({result['gpu_megabytes']} MB, compute capability {result['compute_capability']}, driver "
        f"{result['driver']}), {result['cores']} cores of {result['machine']}; torch {result['torch']} for CUDA "
        f"{result['cuda']}, ONNX Runtime {result['onnxruntime']}; `{result['model']}`."
    )


def _measured(result: dict, group: str) -> dict[str, dict]:
    return {name: found for name, found in result.get(group, {}).items() if "not_measured" not in found}


def _latency(result: dict) -> str | None:
    rows = [
        [name, *(f"{found[key]:.2f}" for key in ("p50_ms", "p95_ms", "p99_ms")), f"{found['largest_difference']:.0e}"]
        for name, found in _measured(result, "latency").items()
    ]
    header = ["3 s window, batch 1", "P50 ms", "P95 ms", "P99 ms", "largest difference of a probability"]
    return table(header, rows) if rows else None


def _training(result: dict) -> str | None:
    found = _measured(result, "training")
    rows = [
        [
            name,
            f"{of_name['steps_per_second']:.1f}",
            f"{of_name['windows_per_second']:.0f}",
            f"{of_name['share_waiting_for_data']:.0%}",
            "-" if of_name["gpu_busy_share"] is None else f"{of_name['gpu_busy_share']:.0%}",
            f"{of_name['launch_ms_per_step']:.1f}",
            f"{of_name['peak_gpu_megabytes']:.0f}",
        ]
        for name, of_name in found.items()
        if "steps_per_second" in of_name
    ]
    header = ["training", "steps/s", "windows/s", "waiting for data", "GPU busy", "launch ms", "peak MB"]
    by_kernel = [
        f"A step ({name.removesuffix(', by kernel')}) launches {of_name['kernels_per_step']:.0f} kernels, which run "
        f"for {of_name['ms_per_step']:.1f} ms."
        for name, of_name in found.items()
        if "kernels_per_step" in of_name
    ]
    return "\n\n".join([*([table(header, rows)] if rows else []), *by_kernel]) or None


def _resume(result: dict) -> str | None:
    for found in _measured(result, "resume").values():
        same = "the same to the bit"
        if found["largest_difference"]:
            same = (
                f"different by {found['largest_difference']:.1e} at most (two runs that were not killed: "
                f"{found['largest_difference_of_two_whole_runs']:.1e})"
            )
        return (
            f"A run in {found['precision']}, killed after step {found['killed_after_checkpoint']} and resumed: weights "
            f"at step {found['steps']} {same}. `train.py` made {found['train_py_steps_per_second']:.1f} steps a second "
            "in it, saving included."
        )
    return None


def _absent(result: dict) -> str | None:
    lines = [
        f"- {name}: {found['not_measured']}"
        for group in ("latency", "training", "resume")
        for name, found in result.get(group, {}).items()
        if "not_measured" in found
    ]
    return "\n".join(["Not measured:", "", *lines]) if lines else None


def main() -> None:
    FlagParser(description=__doc__).parse_args()
    result = json.loads(RESULT.read_text()) if RESULT.is_file() else None
    try:
        text = section(result)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    PAGE.write_text(SECTION.sub(lambda found: found[1] + text + found[2], PAGE.read_text()))
    print(f"{PAGE}: {text.splitlines()[0]}")


if __name__ == "__main__":
    main()
