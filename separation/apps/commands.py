"""`python -m separation`: write weights for hosts other than torch."""

from __future__ import annotations

import argparse
import json
from contextlib import suppress
from pathlib import Path

from separation.inference.device import NETWORK_HELP


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m separation", description="Write weights for hosts without torch.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    about = "write weights as ONNX: one streaming step of the network, with its states as inputs and outputs"
    detail = ". The file's metadata gives a host what it needs: names of the stems, STFT, latency, licence."
    export = commands.add_parser("export", help=about, description=about[0].upper() + about[1:] + detail)
    export.add_argument("weights", type=Path, metavar="WEIGHTS", help="a file written by train.py, or pretrained/*")
    export.add_argument("--network", metavar="PACKAGE.MODULE:CLASS", help=NETWORK_HELP)
    export.add_argument("output", type=Path, metavar="OUT.onnx", help="the file to write")
    export.set_defaults(run=export_weights)
    about = "build a static site that separates songs in the visitor's browser"
    web = commands.add_parser("web", help=about, description=about[0].upper() + about[1:] + ".")
    web.add_argument("folder", type=Path, metavar="FOLDER", nargs="?", default=Path("web"), help="default: web")
    about = "then serve it on this machine, with the headers that let browsers use several threads (default: 8000)"
    web.add_argument("--serve", type=int, nargs="?", const=8000, metavar="PORT", help=about)
    web.set_defaults(run=build_web)
    options = parser.parse_args()
    options.run(options)


def export_weights(options: argparse.Namespace) -> None:
    from separation.apps.export import export

    metadata = {key: json.loads(text) for key, text in export(options.weights, options.output, options.network).items()}
    size = options.output.stat().st_size / 1e6
    print(f"{options.output}: {size:.1f} MB; {', '.join(metadata['sources'])}; {metadata['latency']:.2f} s latency")


def build_web(options: argparse.Namespace) -> None:
    from separation.apps.browser import build, make_server

    print(f"{options.folder}: {build(options.folder) / 1e6:.0f} MB, for any static server")
    if options.serve is None:
        return
    with make_server(options.folder, options.serve) as server, suppress(KeyboardInterrupt):
        print(f"open http://127.0.0.1:{server.server_port}/ and stop with Ctrl-C", flush=True)
        server.serve_forever()
