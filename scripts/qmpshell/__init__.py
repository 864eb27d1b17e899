# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of qmp-shell, lowest first; each uses only those above it.

    errors    what is told to the user
    client    one connection to a monitor
    schema    types as introspection describes them, with documentation
    grammar   a line of text to a command and its arguments
    live      names of things that exist in the daemon now
    complete  what may come next in a line
    manual    help texts, and what to try after an error
    render    replies and events as text
    terminal  the line editor, and output above the line being typed
    session   one user: commands of the shell itself, scripts, the prompt
    main      the command line

Nothing here knows a particular command but two small tables: which arguments
name live things (live.py), and the columns of common replies (render.py).
"""
