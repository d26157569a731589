"""A structure on its way in: from files, folders and archives of any origin to `Atoms`.

`reading` is the entrance; `sources` finds files and opens them; each other module turns the
content of one family of formats into entries (`entries.Entry`): a structure, or the reason why
there is none.
"""
