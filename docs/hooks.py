"""What the site is made of besides the pages: the notebooks, the text of every --help, links to files outside docs/."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
HELP = re.compile(r"^<!-- help: (atts-\w+) -->$", flags=re.MULTILINE)
_WIDTH = "100"


@event_priority(100)  # before the plugin that makes pages of notebooks
def on_files(files: Any, config: Any) -> Any:
    """Pages of the notebooks, which stay in their own folder."""
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        folder = str(config["site_dir"])
        files.append(File(f"notebooks/{notebook.name}", str(ROOT), folder, config["use_directory_urls"]))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Help of each command in place of `<!-- help: PROGRAM -->`; files outside docs/, which are no pages, by name."""
    named = re.sub(r"\[([^\]]+)\]\(\.\./(?!docs)[\w./-]+?(?:#[\w-]+)?\)", r"\1", markdown)
    return HELP.sub(lambda match: _help(match[1]), named)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """A notebook's links, which are right where it lies in the repository, as links of the site."""
    if not page.file.src_uri.startswith("notebooks/"):
        return html
    html = re.sub(r'href="\.\./docs/([\w-]+)\.md', r'href="../\1.html', html)
    return re.sub(r'href="([\w-]+)\.ipynb"(?! download)', r'href="\1.html"', html)


def _help(program: str) -> str:
    os.environ["COLUMNS"] = _WIDTH
    from atts_runtime.cli import build_parser as runtime
    from atts_sim.cli import build_parser as simulator

    parser = (runtime if program == "atts-runtime" else simulator)()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    shown = [f"```text\n{parser.format_help()}```"]
    shown += [f"### {program} {name}\n\n```text\n{found.format_help()}```" for name, found in commands.choices.items()]
    return "\n\n".join(shown)
