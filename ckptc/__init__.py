"""ckptc, the checkpoint compiler."""
