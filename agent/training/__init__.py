"""Training of low-rank adapters (LoRA) and soft prompts for GGUF models, in numpy.

With the extra `tune` PyTorch can train instead, and can train all weights. Pairs of prompt and answer go in
(`loop.TrainingOrder`); a GGUF adapter that llama.cpp loads, or a whole GGUF model, comes out. Knows nothing of tasks,
candidates or ledgers.
"""
