"""What a run that can be resumed writes down. `fingerprint` says what a run is of, `records` is the file of what is finished, `lock` lets one
process at a time write, and `kept` holds what an ended run has left against the journal. `partial` puts them together.
"""
