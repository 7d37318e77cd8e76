"""What a command imports before it answers: help and mistakes must not wait for torch."""

import subprocess
import sys

import pytest
from commands import MAINS

SLOW = ("optuna", "ray", "timm", "torch")
CODE = """
import importlib, sys
main = importlib.import_module(sys.argv[1]).main
try:
    code = main(sys.argv[2:])
except SystemExit as stop:
    code = stop.code or 0
print("imported:", *sorted({name.partition(".")[0] for name in sys.modules}))
sys.exit(code)
"""


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["resnet18", "--no-such-option", "1"], 2)])
@pytest.mark.parametrize("command", MAINS)
def test_help_and_mistyped_options_import_nothing_slow(command, arguments, code):
    # A process of its own, which has imported nothing yet.
    words = [sys.executable, "-c", CODE, MAINS[command], *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    imported = done.stdout.splitlines()[-1].split()
    assert not set(SLOW) & set(imported), f"{command} {' '.join(arguments)} imports {set(SLOW) & set(imported)}"
    assert ("--help" in arguments) == (len(done.stdout.splitlines()) > 1)
