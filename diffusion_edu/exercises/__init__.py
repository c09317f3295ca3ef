"""The checks of the notebooks' exercises, a module a notebook: what is right, and what each usual mistake is told.

Read them after you have tried. A notebook says ``from diffusion_edu.exercises import n01 as exercise`` and calls them
in one line, and each answers with a sentence.
"""
