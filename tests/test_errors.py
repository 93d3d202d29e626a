"""How scripts end: by signals, into closed pipes, and on terminals of another alphabet."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY, environment, hear_signals

from separation.errors import UserError

WORK = """
import sys, time
from pathlib import Path
from separation.errors import UserError
from separation.runtime import run_script
from separation.files import replacing

def main():
    if sys.argv[1] == "write":
        with replacing(Path(sys.argv[2])) as partial:
            partial.write_text("half")
            print("ready", flush=True)
            time.sleep(60)
    if sys.argv[1] == "say":
        for _ in range(20000):
            print("Björk \\u2192 \\u5b87\\u591a\\u7530", flush=True)
        Path(sys.argv[2]).write_text("done")
    if sys.argv[1] == "import":
        sys.path.insert(0, sys.argv[2])
        import slow
        time.sleep(60)
    if sys.argv[1] == "fail":
        raise UserError("there is no \\u5b87.")

run_script(main)
"""


def start(*arguments: object, **options: object) -> subprocess.Popen:
    command = [sys.executable, "-c", WORK, *map(str, arguments)]
    variables = {**environment(), **options.pop("env", {})}
    return subprocess.Popen(command, cwd=REPOSITORY, env=variables, preexec_fn=hear_signals, **options)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere there are no such signals")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_signal_leaves_nothing_half_written(tmp_path, name, code):
    process = start("write", tmp_path / "x", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.strip()) == (code, "stopped")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="elsewhere there are no such signals")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_waits_for_the_end_of_an_import(tmp_path, name, code):
    """An exception in the middle of torch's import would end the program by an abort."""
    lines = "import time", "from pathlib import Path", "print('importing', flush=True)", "time.sleep(0.5)"
    (tmp_path / "slow.py").write_text("\n".join((*lines, f"Path({str(tmp_path)!r}, 'whole').touch()")))
    process = start("import", tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "importing\n"
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.strip()) == (code, "stopped")
    assert (tmp_path / "whole").exists()


@pytest.mark.skipif(os.name != "posix", reason="elsewhere there are no such pipes")
@pytest.mark.parametrize("redirect", ["| head -1 >/dev/null", ">/dev/full", ">&-", "2>&- | head -1 >/dev/null"])
def test_output_that_cannot_be_written_costs_nothing(tmp_path, redirect):
    script = f'"$0" -c "$1" say {tmp_path / "x"} {redirect}; exit ${{PIPESTATUS[0]}}'
    command = ["bash", "-c", script, sys.executable, WORK]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "x").read_text() == "done"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_a_terminal_of_another_alphabet_costs_nothing(tmp_path, encoding):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start("say", tmp_path / "x", env={"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}, **pipes)
    process.communicate()
    assert process.returncode == 0
    failed = start("fail", env={"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}, **pipes)
    assert failed.communicate()[1].startswith(b"error: there is no ?") and failed.returncode == 1


@pytest.mark.skipif(os.name != "posix", reason="elsewhere there are no such signals")
@pytest.mark.parametrize(
    "command",
    [
        "songs.command none.wav",
        "dataset.command --dataset FOLDER --vocals --root .",
        "training.command --config none.yaml",
        "scoring.command --target vocals --root .",
    ],
)
@pytest.mark.parametrize("delay", [0.1, 0.4, 0.8])
def test_ctrl_c_at_the_start_prints_no_trace(tmp_path, command, delay):
    """As the scripts start, and counted from there: how long Python itself takes depends on the machine."""
    module, *arguments = command.split()
    code = f"from separation.runtime import run_script; print('started', flush=True); run_script('separation.{module}')"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    options = {"cwd": tmp_path, "env": {**environment(), "PYTHONPATH": str(REPOSITORY)}, "preexec_fn": hear_signals}
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], **pipes, **options)
    assert process.stdout.readline() == "started\n"
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    assert process.returncode in (-signal.SIGINT, 130, 1)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere there are no such signals")
def test_ctrl_c_while_an_error_is_written_prints_no_trace():
    code = """
import os, signal, sys
from separation.errors import UserError
from separation.runtime import run_script

class Interrupted:
    def write(self, text):
        sys.__stderr__.write(text)
        sys.__stderr__.flush()
        os.kill(os.getpid(), signal.SIGINT)

def main():
    raise UserError("no such song.")

sys.stderr = Interrupted()
run_script(main)
"""
    options = {"cwd": REPOSITORY, "env": environment(), "preexec_fn": hear_signals}
    run = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False, **options)
    assert (run.returncode, run.stderr.strip()) == (-signal.SIGINT, "error: no such song.")


def test_the_code_of_an_error_survives_a_worker_process():
    error = pickle.loads(pickle.dumps(UserError("the song is cut short.", code="cut_short")))
    assert (str(error), error.code) == ("the song is cut short.", "cut_short")


@pytest.mark.parametrize(
    ("command", "extra"),
    [("training.command --help", "train"), ("apps.commands export song.safetensors song.onnx", "onnx")],
)
def test_the_extra_with_a_package_that_is_missing_is_named_in_one_sentence(command, extra):
    """`pip install .` brings every command, but not torch."""
    module, *arguments = command.split()
    code = "import sys; sys.modules['torch'] = None; from separation.runtime import run_script"
    started = [sys.executable, "-c", f"{code}; run_script('separation.{module}')", *arguments]
    run = subprocess.run(started, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("error: ") and run.stderr.count("\n") == 1
    assert "torch" in run.stderr and f"[{extra}]" in run.stderr
