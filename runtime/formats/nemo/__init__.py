"""NeMo 1: `nemo` is the format and the kind of archive, `archive` and `tar_members` read the tar, `gunzip` old
compressed ones, `pack` writes one. `training_run` reads what a run keeps in its checkpoints, `interpolation` what
its configs refer to.
"""
