"""A search with a scorer that trains nothing, as a process of its own: python fake_search.py SECONDS CONFIG-AS-JSON."""

import json
import os
import sys

from fakes import FakeEvaluator

from cp_vision.search import Search, SearchConfig

if __name__ == "__main__":
    seconds, values = float(sys.argv[1]), json.loads(sys.argv[2])
    deadly = values.pop("deadly", None)

    def before(architecture, call):
        if deadly is not None and list(architecture.drops) == deadly:
            os.abort()

    Search(SearchConfig(**values)).run(evaluator=FakeEvaluator(before, epochs=9, seconds=seconds))
