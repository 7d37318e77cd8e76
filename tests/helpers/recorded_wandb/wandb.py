"""Stands in for wandb where it is not installed: notes what a run is given, in place of sending it."""

runs = []


class Run:
    """A run: its arguments, what was logged, and the error that it ended with."""

    def __init__(self, arguments):
        self.arguments, self.logged, self.error = arguments, [], None

    def log(self, values, step):
        self.logged.append((step, values))

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.error = error


def init(*, project=None, name=None, tags=None, config=None, dir=None, id=None, resume=None):
    if project == "refused":
        raise ValueError("api_key\nnot configured")
    runs.append(Run({"project": project, "name": name, "tags": tags, "config": config, "id": id, "resume": resume}))
    return runs[-1]
