"""Two checkpoints in, a report of what is equal and what differs out: `verify` by way of a mapping, between any two layouts,
formats and degrees, `diff` by names alone. `sides` settles which layouts they are and finds every stored tensor;
`alternatives` tries a layout's other parameters; `findings` puts what was found in records; `report` has these records, and
their text. The comparing itself, which shares nothing with the engine, is in `runtime.checking`.
"""
