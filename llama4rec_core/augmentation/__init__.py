"""Mutual augmentation: `data` is what the LLM gives the backbone (4.2), `prompt` what it gets in return (4.3)."""
