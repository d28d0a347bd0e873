"""Descriptions of data sets with files of one's own."""

from dataclasses import replace


def with_files(entry, *published, mirrors=()):
    """The same set, published as other files on other servers."""
    return replace(entry, files=replace(entry.files, published=published, mirrors=mirrors))
