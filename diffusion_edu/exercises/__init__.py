"""The checks of the notebooks' exercises, one module per notebook: what is right, and what to say of each mistake.

Read them after you have tried. A notebook calls each in one line, and it answers with a sentence.
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
