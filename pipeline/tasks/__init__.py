"""Tasks: labelled sets that a model is fine-tuned on, or asked about by prompts."""
