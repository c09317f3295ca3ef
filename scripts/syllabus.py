"""Write notebooks/README.md: the syllabus that GitHub shows under the folder, and that `make lab` opens.

python -m scripts.syllabus

It is made from what each notebook says of itself in its first cell. It has no directives: it reads as plain text too.
"""

from pathlib import Path

from scripts.book_pages import launch_links, parts, summary
from scripts.notebook_execution import write_beside

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "notebooks" / "README.md"
HEAD = """\
# Syllabus

From top to bottom; nothing later is needed for anything earlier. Each notebook opens with what you will be able to do,
runs from its first cell to its last, and has exercises that check themselves. What you write into a notebook stays
there: `git diff` shows it, and `git checkout notebooks` brings back the notebooks as they were.

The seconds to run are round figures for two fast cores; slower ones take up to twice as long.
[A table](../book/costs.md) has what was measured.
"""


def syllabus() -> str:
    """The notebooks in their order, with aims, needs, time and where else they open."""
    lines = [HEAD]
    for part, here in parts():
        lines += [f"## {part}", ""]
        for path in here:
            about = summary(path)
            needs = about.needs.replace("](notebooks/", "](")  # links from inside the folder
            lines += [f"### [{about.title}]({path.name})", ""]
            lines += [f"- {aim}" for aim in about.aims]
            lines += ["", f"**You need**: {needs}", "", f"**Time**: {about.time}. {launch_links(path.stem)}", ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    write_beside(TARGET, syllabus())
