"""The arguments of ``cp-search status``, ``report``, ``export``, ``solve`` and ``resume``."""

from __future__ import annotations

import argparse
from pathlib import Path

from cp_vision.shared.command_line import CommandParser

__all__ = ["COMMANDS", "QUIET", "WORDS", "subcommand_parser"]

QUIET = "show no progress; what is planned, mistakes and results alone"
COMMANDS = {
    "status": "what was tried, what runs, who leads",
    "report": "write the report and the table again",
    "export": "write any candidate as a model folder that timm loads",
    "solve": "the best architecture under a budget by scores of an earlier search, in seconds and without data",
    "resume": "go on with a search that was stopped, or with more trials",
}

# What stands behind a command, where it isn't FOLDER.
WORDS = {"export": "FOLDER NUMBER", "solve": "SCORES"}


def subcommand_parser(command: str) -> CommandParser:
    """The arguments of one of :data:`COMMANDS`."""
    words = {"export": "runs/digits 12", "solve": "runs/digits --budget 0.6x,0.4x --output solved"}
    made = CommandParser(
        f"cp-search {command}",
        description=f"{COMMANDS[command].capitalize()}. Example:\n\n  cp-search {command} "
        + words.get(command, "runs/digits"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if command == "solve":
        made.add_argument(
            "scores",
            nargs="?",
            help="folder of a search by fits, its scores.json, or a name of scores that come with the package; without "
            "it these are listed",
        )
        made.add_argument("--budget", default="0.7x", metavar="BUDGETS", help="as of a search; default 0.7x")
        made.add_argument("--output", type=Path, help="folder to write BUDGET/architecture.json to; default none")
        return made
    made.add_argument("folder", type=Path, help="output folder of the search")
    if command == "export":
        made.add_argument("number", type=int, help="number of the candidate, as in report and pareto.csv")
        made.add_argument("--output", type=Path, help="folder to write; default FOLDER/exported/NUMBER")
    if command == "resume":
        made.add_argument("--trials", type=int, help="candidates to try, the base included; default as before")
        made.add_argument("--quiet", action="store_true", help=QUIET)
    return made
