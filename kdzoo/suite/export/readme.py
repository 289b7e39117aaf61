"""The README beside an exported network: what it is, code that classifies or embeds an image file, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass

from kdzoo.suite.export.reading import Reading, listed
from kdzoo.suite.export.student import Student

TEMPLATE = """# {title}

{what}, {origin}. It needs {needs}.

```python
{code}
```
"""


@dataclass(frozen=True)
class Usage:
    """Code that uses an exported network: imports, statements that load it, and a function of the image file at `path`.

    verb: the function's name, `classify` or `embed`; statements: its body. needs: the packages that it takes.
    """

    imports: tuple[str, ...]
    loading: tuple[str, ...]
    verb: str
    statements: tuple[str, ...]
    needs: tuple[str, ...]

    @property
    def code(self) -> str:
        """The whole script, which classifies or embeds image.jpg."""
        function = (f"def {self.verb}(path):", *(f"    {line}" for line in self.statements))
        return "\n".join([*self.imports, "", *self.loading, "", "", *function, "", "", f'print({self.verb}("image.jpg"))'])


READ_CLASSES = ('with open("classes.json", encoding="utf-8") as file:', "    classes = json.load(file)")
"""loads the names of the classes by number, as text"""


def readme(student: Student, reading: Reading, usage: Usage, words: str) -> str:
    """A README in Markdown. words: what is said of the network below the code."""
    name = f"`{student.spec.name}`"
    title, what = (
        ("A small backbone", f"{name} without a classifier, which gives an embedding of an image")
        if student.embeds
        else ("A small network", f"{name} for {len(student.dataset.classes)} classes")
    )
    heading = TEMPLATE.format(title=title, what=what, origin=student.origin, needs=listed(usage.needs), code=usage.code)
    return "\n".join([heading, *([f"{arrays_words(student, reading)}\n"] if not student.from_files else []), f"{words}\n"])


def arrays_words(student: Student, reading: Reading) -> str:
    """What a reader has to know of a network that was trained on no image files."""
    side, arrays = reading.decode_side, f"arrays ({student.dataset.source})" if student.dataset.source else "arrays"
    return (
        f"The network was trained on {arrays}, not on image files: a file of {side}x{side} pixels gives its pixels unchanged, any other "
        "is resized to that."
    )
