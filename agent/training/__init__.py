"""Training on one's own rows: low-rank adapters (LoRA) and soft prompts for GGUF models, in numpy alone.

With the extra `tune` PyTorch can do it in numpy's place, and train all weights. What a model is asked and what it
should answer comes in (`loop.TrainingOrder`), a GGUF adapter that llama.cpp loads next to the model, or a whole GGUF
model, goes out. Knows nothing of tasks, candidates or ledgers.
"""
