"""The files of the tree, as the lint tests look at them."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKIPPED = re.compile(r"build[^/]*|\..*|__pycache__|subprojects")
CODE = {".h", ".hpp", ".cpp", ".c", ".cc", ".def"}
SKIP = 77  # what meson takes for "skipped"


def files(*folders):
    """Every file below the folders (default: the whole tree), build directories left out."""
    for folder in folders or ("",):
        for path in sorted((ROOT / folder).rglob("*")):
            inside = path.relative_to(ROOT)
            if path.is_file() and not any(SKIPPED.fullmatch(part) for part in inside.parts[:-1]):
                yield inside


def code(*folders):
    return (path for path in files(*folders) if path.suffix in CODE)


def lines(path, comments=True):
    """Numbered lines; without comments where wanted, in C++ files."""
    text = (ROOT / path).read_text(errors="replace")
    if not comments:
        keep_lines = lambda match: "\n" * match.group().count("\n")
        text = re.sub(r"/\*.*?\*/|//[^\n]*", keep_lines, text, flags=re.S)
    return enumerate(text.splitlines(), 1)


def finish(complaints):
    """Prints what is wrong and ends the test."""
    for complaint in complaints:
        print(complaint)
    sys.exit(1 if complaints else 0)
