"""For each exercise the wrong answers that people give, and words of what each must be told: a module a notebook.

number of the exercise -> [(code that replaces the stub, words of the diagnosis), ...]
"""

import importlib

WrongAnswers = dict[str, list[tuple[str, str]]]


def of(notebook: str) -> WrongAnswers:
    """Those of a notebook, named by its file without the ending: `02_closed_form` -> the module `n02`."""
    answers: WrongAnswers = importlib.import_module(
        f"tests.wrong_answers.n{notebook.split('_')[0].lower()}"
    ).WRONG_ANSWERS
    return answers
