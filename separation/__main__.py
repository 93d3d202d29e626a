"""Weights for other hosts than torch.

`python -m separation export WEIGHTS OUT.onnx` is for those that have ONNX Runtime, `python -m separation web FOLDER`
for browsers.
"""

import argparse
import json
from contextlib import suppress
from functools import partial
from pathlib import Path

from separation.inference.device import NETWORK_HELP
from separation.runtime import run_script

separate = partial(run_script, "separation.songs.command")
"""The command `separate`; the packages of the other commands are imported in the same way, once signals are handled."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m separation", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    exporting = commands.add_parser(
        "export",
        help="write weights as ONNX: a step of the network's stream, with its states as inputs and outputs",
        description="Write weights as ONNX: a step of the network's stream, with its states as inputs and outputs. "
        "The file's metadata says what a host must know: names of the stems, STFT, latency, licence.",
    )
    exporting.add_argument("weights", type=Path, metavar="WEIGHTS", help="a file that train.py wrote, or pretrained/*")
    exporting.add_argument("output", type=Path, metavar="OUT.onnx", help="the file to write")
    exporting.add_argument("--network", metavar="PACKAGE.MODULE:CLASS", help=NETWORK_HELP)
    exporting.set_defaults(run=export_weights)
    browser = commands.add_parser(
        "web",
        help="make a folder that any static server can serve, in which a browser separates songs by itself",
        description="Make a folder that any static server can serve, in which a browser separates songs by itself.",
    )
    browser.add_argument("folder", type=Path, metavar="FOLDER", nargs="?", default=Path("web"), help="default: web")
    help_serve = "then serve it on this machine, in a way that lets browsers use several threads (default: 8000)"
    browser.add_argument("--serve", type=int, nargs="?", const=8000, metavar="PORT", help=help_serve)
    browser.set_defaults(run=build_web)
    options = parser.parse_args()
    options.run(options)


def export_weights(options: argparse.Namespace) -> None:
    from separation.apps.export import export

    said = {key: json.loads(text) for key, text in export(options.weights, options.output, options.network).items()}
    size = options.output.stat().st_size / 1e6
    print(f"{options.output}: {size:.1f} MB; {', '.join(said['sources'])}; {said['latency']:.2f} s late")


def build_web(options: argparse.Namespace) -> None:
    from separation.apps.browser.build import build
    from separation.apps.browser.serve import make_server

    print(f"{options.folder}: {build(options.folder) / 1e6:.0f} MB, for any static server")
    if options.serve is None:
        return
    with make_server(options.folder, options.serve) as server, suppress(KeyboardInterrupt):
        print(f"open http://127.0.0.1:{server.server_port}/ and stop with Ctrl-C", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    run_script(main)
