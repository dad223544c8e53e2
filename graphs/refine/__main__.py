"""All four datasets with any chat model: `python -m graphs.refine --model local`, or `--model provider:name`."""

from __future__ import annotations

import argparse

from ..gobang.team import model_option
from . import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m graphs.refine", description=__doc__)
    parser.add_argument(
        "--model", type=model_option, help="local (extra `local`) or provider:name (langchain); by default scripted"
    )
    raise SystemExit(main(parser.parse_args().model))
