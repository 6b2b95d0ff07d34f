"""A linked mapping and a model's sizes in, a `runtime.plan.Plan` out, in pure passes. Read `pipeline` first: it is the
list of passes from two resolved layouts to a plan. `laws` says what holds between them. The sub-rooms are in the
order of the work: `link` (parsed files to families), `check` (faults of a mapping by itself), `values` (expressions,
guards, stages), `identify` (which layout a checkpoint is of), `settle` (sizes, parameters and live rules), `algebra`
(lower, prove, compose, optimise), `say` (a plan as text and as a module). `fit` searches the parameters of a source.
"""
