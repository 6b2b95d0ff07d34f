"""The settings of training runs of Megatron-LM and Megatron-Bridge, from what their checkpoints hold: `run_arguments`,
and `run_config` in the same words.
"""
