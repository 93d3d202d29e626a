"""`python -m separation export WEIGHTS OUT.onnx`: weights for hosts that have ONNX Runtime in place of torch."""

import separation.start  # noqa: F401 (first: see there)

# isort: split
import argparse
import json
from pathlib import Path

from separation.errors import run_script


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m separation", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    exporting = commands.add_parser(
        "export",
        help="write weights as ONNX: a step of the network's stream, with its states as inputs and outputs",
        description="Write weights as ONNX: a step of the network's stream, with its states as inputs and outputs. "
        "The file's metadata says what a host must know: names of the stems, STFT, latency, licence.",
    )
    exporting.add_argument("weights", type=Path, metavar="WEIGHTS", help="a file that train.py wrote, or pretrained/*")
    exporting.add_argument("output", type=Path, metavar="OUT.onnx", help="the file to write")
    options = parser.parse_args()

    from separation.portable.export import export

    said = {key: json.loads(text) for key, text in export(options.weights, options.output).items()}
    size = options.output.stat().st_size / 1e6
    print(f"{options.output}: {size:.1f} MB; {', '.join(said['sources'])}; {said['latency']:.2f} s late")


if __name__ == "__main__":
    run_script(main)
