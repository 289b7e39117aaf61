"""Where a paper stands, in a few letters."""

from __future__ import annotations

import re


def reference(url: str | None, year: int | None = None) -> str:
    """A URL in a few letters: `arXiv:1503.02531`, `doi:10.1145/3097983.3098135`, else the site and the year."""
    if not url:
        return ""
    for pattern, words in REFERENCES:
        if match := re.search(pattern, url):
            return words + match.group(1) if words else match.group(1).replace("_", " ")
    site = url.partition("://")[2].partition("/")[0].removeprefix("www.")
    return f"{site} {year}" if year else site


REFERENCES = (
    (r"arxiv\.org/abs/([\w.-]+)", "arXiv:"),
    (r"doi\.org/(.+)", "doi:"),
    (r"openreview\.net/forum\?id=(\w+)", "OpenReview:"),
    (r"thecvf\.com/.*_((?:CVPR|ICCV|WACV)_\d+)_paper", ""),
    (r"github\.com/[\w.-]+/([\w.-]+)", "github:"),
)
"""the identifier within a URL, and the word before it"""
