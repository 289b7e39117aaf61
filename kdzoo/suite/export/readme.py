"""The README beside an exported network: what it is, code that classifies an image file, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass

from kdzoo.suite.export.reading import Reading, listed
from kdzoo.suite.export.student import Student

TEMPLATE = """# A small network

`{name}` for {count} classes, {origin}. It needs {needs}.

```python
{code}
```
"""


@dataclass(frozen=True)
class Usage:
    """Code that uses an exported network: imports, statements that load it, and the statements of a function that classifies the
    image file at `path`. needs: the packages that it takes.
    """

    imports: tuple[str, ...]
    loading: tuple[str, ...]
    classifying: tuple[str, ...]
    needs: tuple[str, ...]

    @property
    def code(self) -> str:
        """The whole script, which classifies image.jpg."""
        function = ("def classify(path):", *(f"    {line}" for line in self.classifying))
        return "\n".join([*self.imports, "", *self.loading, "", "", *function, "", "", 'print(classify("image.jpg"))'])


READ_CLASSES = ('with open("classes.json", encoding="utf-8") as file:', "    classes = json.load(file)")
"""loads the names of the classes by number, as text"""


def readme(student: Student, reading: Reading, usage: Usage, words: str) -> str:
    """A README in Markdown. words: what is said of the network below the code."""
    name, count = student.spec.name, len(student.dataset.classes)
    heading = TEMPLATE.format(name=name, count=count, origin=student.origin, needs=listed(usage.needs), code=usage.code)
    return "\n".join([heading, *([f"{arrays_words(student, reading)}\n"] if not student.from_files else []), f"{words}\n"])


def arrays_words(student: Student, reading: Reading) -> str:
    """What a reader has to know of a network that was trained on no image files."""
    side, arrays = reading.decode_side, f"arrays ({student.dataset.source})" if student.dataset.source else "arrays"
    return (
        f"The network was trained on {arrays}, not on image files: a file of {side}x{side} pixels gives its pixels unchanged, any other "
        "is resized to that."
    )
