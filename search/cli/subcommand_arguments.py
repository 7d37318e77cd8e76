"""The arguments of ``cp-search status``, ``report``, ``export`` and ``resume``."""

from __future__ import annotations

import argparse
from pathlib import Path

from cp_vision.shared.command_line import CommandParser

__all__ = ["COMMANDS", "QUIET", "subcommand_parser"]

QUIET = "show no progress; what is planned, mistakes and results alone"
COMMANDS = {
    "status": "what was tried, what runs, who leads",
    "report": "write the report and the table again",
    "export": "write any candidate as a model folder that timm loads",
    "resume": "go on with a search that was stopped, or with more trials",
}


def subcommand_parser(command: str) -> CommandParser:
    """The arguments of one of :data:`COMMANDS`."""
    made = CommandParser(
        f"cp-search {command}",
        description=f"{COMMANDS[command].capitalize()}. Example:\n\n  cp-search {command} runs/digits"
        + (" 12" if command == "export" else ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("folder", type=Path, help="output folder of the search")
    if command == "export":
        made.add_argument("number", type=int, help="number of the candidate, as in report and pareto.csv")
        made.add_argument("--output", type=Path, help="folder to write; default FOLDER/exported/NUMBER")
    if command == "resume":
        made.add_argument("--trials", type=int, help="candidates to try, the base included; default as before")
        made.add_argument("--quiet", action="store_true", help=QUIET)
    return made
