"""Trains with PyTorch, transformers and peft (extra `tune`), in the loop and the layout of the numpy trainer.

Heavy packages load inside the functions that use them.
"""
