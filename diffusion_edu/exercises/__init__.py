"""The checks of the notebooks' exercises, a module a notebook: what is right, and what each usual mistake is told.

Read them after you have tried. A notebook calls them in one line, and each answers with a sentence.
"""

from . import n00, n01, n02, n03, n04, n05, n06, n07, n08, n09, n10, n11, n12, n13, n14, n15, n16, na

__all__ = [
    "n00",
    "n01",
    "n02",
    "n03",
    "n04",
    "n05",
    "n06",
    "n07",
    "n08",
    "n09",
    "n10",
    "n11",
    "n12",
    "n13",
    "n14",
    "n15",
    "n16",
    "na",
]
