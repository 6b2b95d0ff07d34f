"""The subcommands: options in, calls of the API out. `commands` finds the one that is named and imports its module; `parse`
reads words by a `Command`'s options, `page` prints them as help; `options` has those that several commands share, `running`
what `convert`, `run` and `zero1` do with a plan.
"""
