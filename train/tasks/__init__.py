"""Fine-tuning on tasks: the input forms of GPT-1, a linear head, and the figures of its predictions."""
