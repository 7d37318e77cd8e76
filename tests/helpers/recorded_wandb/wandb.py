"""Stands in for wandb where it is not installed: notes what a run is given, in place of sending it."""

import errno

runs = []


class Run:
    """A run: its arguments, what was logged, and the exit code that it ended with."""

    def __init__(self, arguments):
        self.arguments, self.logged, self.exit_code = arguments, [], None

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self, exit_code):
        self.exit_code = exit_code
        if self.arguments["project"] == "endless":
            raise ValueError("the service\nended")


def init(*, project=None, name=None, tags=None, config=None, dir=None, id=None, resume=None):
    if project == "refused":
        raise ValueError("api_key\nnot configured")
    if project == "no room":
        raise OSError(errno.ENOSPC, "No space left on device")
    runs.append(Run({"project": project, "name": name, "tags": tags, "config": config, "id": id, "resume": resume}))
    return runs[-1]
